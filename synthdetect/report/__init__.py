"""Report of a run as one HTML page: its results, its images, and what was held out."""

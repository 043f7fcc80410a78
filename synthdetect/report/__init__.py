"""A run as one page of HTML: what it measured, on which images, and what was held out."""

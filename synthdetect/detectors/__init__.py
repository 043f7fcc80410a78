"""A trained detector, and scoring many images with it."""

"""Comparison of recorded runs, and the promotion of a model that a comparison supports."""

"""Serving of detectors: the MLflow model, its HTTP server, and the limits on requests."""

SERVED_ARTIFACT = "detector"
"""Name of the detector's file among the artifacts of a logged model."""

"""The served model: image in, probability out."""

SERVED_ARTIFACT = "detector"
"""Name of the detector's file among the model's artifacts."""

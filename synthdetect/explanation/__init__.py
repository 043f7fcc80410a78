"""Explanations: Grad-CAM of a detector's predictions, and mean spectra of images."""

"""Evaluation of detectors on perturbed and equalised images."""

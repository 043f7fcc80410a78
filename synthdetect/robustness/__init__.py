"""What perturbations do to a detector."""

"""What a detector looks at, and what sets generated images apart."""

"""From one untrusted image file to batches of tensors."""

"""Read, preprocess and augment images: from untrusted files to batches of tensors."""

"""Manifests of data sets: reading, indexing, splitting and selecting images."""

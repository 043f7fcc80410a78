"""Audit of a data set: metadata that give the labels away, and faults of the data."""

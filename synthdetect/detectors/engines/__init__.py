"""Detectors computed by other engines than torch, each from one file that holds all of it."""

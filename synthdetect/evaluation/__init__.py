"""Metrics, calibration, tables and figures, as pure functions of prediction tables."""

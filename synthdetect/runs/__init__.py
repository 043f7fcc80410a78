"""Tracked runs: training, cross-validation, regimes, evaluation, prediction and export."""

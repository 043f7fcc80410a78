"""Differences between training strategies: comparisons, figures and verdicts."""

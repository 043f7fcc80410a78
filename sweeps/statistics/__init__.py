"""Differences between training strategies: estimates, intervals and verdicts."""

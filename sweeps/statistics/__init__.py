"""Statistics of a comparison: differences between sides, their intervals, and verdicts.

These modules work on tables of final fits and import neither Optuna nor MLflow.
"""

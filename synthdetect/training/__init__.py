"""The training core. It knows neither MLflow nor Optuna."""

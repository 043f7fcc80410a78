"""From predictions to numbers and pictures. Knows neither MLflow nor Optuna."""

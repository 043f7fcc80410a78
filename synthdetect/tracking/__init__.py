"""MLflow's tracking store and model registry: runs, models, and detectors found in them."""

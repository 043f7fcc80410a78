"""The edge: the only package that talks to MLflow's tracking and registry."""

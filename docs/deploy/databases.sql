-- MLflow, its users and Optuna each have a database of their own.
CREATE DATABASE mlflow;
CREATE DATABASE auth;
CREATE DATABASE optuna;

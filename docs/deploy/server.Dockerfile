# The tracking server. `mlflow` has the version that the clients have.
FROM python:3.11-slim
RUN pip install --no-cache-dir "mlflow[auth]>=3.17,<3.18" "psycopg[binary]>=3.2,<4" "boto3>=1.40,<2"
COPY auth.ini bucket.py /etc/mlflow/
RUN useradd --create-home mlflow
USER mlflow
WORKDIR /home/mlflow

"""Make the bucket of the artifacts, unless it is there, once the store answers."""

import os
import time

import boto3
from botocore.exceptions import ClientError, EndpointConnectionError

s3 = boto3.client("s3", endpoint_url=os.environ["MLFLOW_S3_ENDPOINT_URL"])
for attempt in range(60):
    try:
        s3.create_bucket(Bucket="mlflow")
        break
    except EndpointConnectionError:
        if attempt == 59:
            raise
        time.sleep(1)
    except ClientError as error:
        if error.response["Error"]["Code"] not in (
            "BucketAlreadyOwnedByYou",
            "BucketAlreadyExists",
        ):
            raise
        break

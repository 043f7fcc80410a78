"""Score the images of a folder with Spark and a logged model: a recipe to adapt.

    python docs/spark_scoring.py models:/synthdetect@champion FOLDER OUTPUT.parquet

Spark reads the files, `mlflow.pyfunc.spark_udf` loads the model in each of its Python workers, and
Spark writes the answers as Parquet. It needs `pip install pyspark` and Java 17 or later.

A request of a served model has limits, and a batch of Spark counts as one: hence the number of
records per batch. One unreadable image fails the task, as it refuses a request; `synthdetect
predict` lists such images instead.
"""

import sys

import mlflow
from pyspark.sql import SparkSession
from pyspark.sql.functions import base64, col, translate

ANSWER = "struct<probability: double, label: string, threshold: double>"


def main(model: str, folder: str, output: str) -> None:
    spark = (
        SparkSession.builder.appName("synthdetect")
        .config("spark.sql.execution.arrow.maxRecordsPerBatch", 64)  # images that a worker holds
        .config("spark.ui.enabled", "false")
        .getOrCreate()
    )
    score = mlflow.pyfunc.spark_udf(spark, model, result_type=ANSWER, env_manager="local")
    files = spark.read.format("binaryFile").option("recursiveFileLookup", "true").load(folder)
    text = translate(base64(col("content")), "\r\n", "")  # Spark may break it into lines
    answers = files.select("path", score(text).alias("answer"))
    answers.select("path", "answer.*").write.mode("overwrite").parquet(output)
    spark.stop()


if __name__ == "__main__":
    main(*sys.argv[1:])

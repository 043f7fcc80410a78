"""What a served model takes and gives, as MLflow describes it."""

from mlflow.models import ModelSignature
from mlflow.types import ColSpec, ParamSchema, ParamSpec, Schema

SIGNATURE = ModelSignature(
    inputs=Schema([ColSpec("string", "image")]),
    outputs=Schema(
        [
            ColSpec("double", "probability"),
            ColSpec("string", "label"),
            ColSpec("double", "threshold"),
        ]
    ),
    # A parameter must have a default. A negative threshold stands for the detector's own.
    params=ParamSchema([ParamSpec("threshold", "double", -1.0)]),
)
"""Input: base64 text of an image's file. Output: probability of synthetic, label, threshold."""

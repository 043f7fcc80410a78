"""What a served model takes and gives, as MLflow describes it."""

from mlflow.models import ModelSignature
from mlflow.types import ColSpec, ParamSchema, ParamSpec, Schema

from synthdetect.detectors.card import Card


def signature_of(card: Card) -> ModelSignature:
    """Return the signature of a detector.

    Input: base64 text of an image's file. Output: probability of synthetic, label, threshold, and
    the answer of attribution if the detector has one.
    """
    attributed = [ColSpec("string", "attributed")] if card.attribution else []
    return ModelSignature(
        inputs=Schema([ColSpec("string", "image")]),
        outputs=Schema(
            [
                ColSpec("double", "probability"),
                ColSpec("string", "label"),
                ColSpec("double", "threshold"),
                *attributed,
            ]
        ),
        # A parameter must have a default. A negative threshold stands for the detector's own.
        params=ParamSchema([ParamSpec("threshold", "double", -1.0)]),
    )

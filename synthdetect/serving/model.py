"""The code of the logged model, which `mlflow models serve` and `mlflow.pyfunc.load_model` run.

The input is a column `image` with the content of image files as base64 text. The output has a row
for each image: its `probability` of being synthetic, its `label` (real, synthetic, or unsure within
the band of doubt), and the `threshold` between the labels. If the detector attributes images,
`attributed` is the generator, `unknown`, or `real` for an image that is not called synthetic.
"""

import base64
import binascii
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import mlflow.models
import numpy as np
import pandas as pd
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE
from mlflow.pyfunc.model import PythonModel, PythonModelContext
from scipy.special import expit

from synthdetect.detectors.detector import Detector
from synthdetect.detectors.engines.exported import load_detector
from synthdetect.images.reading import BadImage, open_image
from synthdetect.serving import SERVED_ARTIFACT
from synthdetect.serving.batching import BATCH, Score, Squares
from synthdetect.serving.limits import decoding, limits_from_environment
from synthdetect.serving.options import ServeOptions


class Refused(MlflowException):
    """A request is invalid: status 400 and a short reason.

    MLflow's server sets the message of an exception to one with the whole request in it; this
    message cannot be set.
    """

    def __init__(self, reason: str) -> None:
        self._reason = reason
        super().__init__(reason, error_code=INVALID_PARAMETER_VALUE)

    @property
    def message(self) -> str:
        return self._reason

    @message.setter
    def message(self, text: str) -> None:
        pass


class ServedDetector(PythonModel):
    """A detector behind MLflow's interface.

    Args:
        detector: The detector. Without one, MLflow calls `load_context`.
        limits: The limits on a request; by default those of the environment.
        score: Scores what it is given a function for; by default each chunk of a request by itself.
    """

    detector: Detector

    def __init__(
        self,
        detector: Detector | None = None,
        limits: ServeOptions | None = None,
        score: Score | None = None,
    ) -> None:
        self.limits = limits or limits_from_environment()
        self._score = score or (lambda prepare: self.detector.outputs(prepare()))
        if detector:
            self.detector = detector

    def load_context(self, context: PythonModelContext) -> None:
        self.detector = load_detector(Path(context.artifacts[SERVED_ARTIFACT]))

    def predict(
        self, context: Any, model_input: pd.DataFrame, params: dict[str, Any] | None = None
    ) -> pd.DataFrame:
        """Score images.

        Args:
            context: Unused; MLflow passes it.
            model_input: A table with a column `image` of base64 text, or with one column only.
            params: `threshold` replaces the detector's own threshold unless it is negative.

        Returns:
            A table with the columns `probability`, `label` and `threshold`, and `attributed` if
            the detector attributes images.

        Raises:
            Refused: If a row is no readable image (the message names the row, counted from 0), or
                there are too many images or pixels.
        """
        threshold = float((params or {}).get("threshold", -1.0))
        return pd.DataFrame(self.answers(_texts(model_input), threshold))

    def answers(self, texts: list[Any], threshold: float = -1.0) -> dict[str, list[Any]]:
        """Return the columns of the table of `predict`, for images as base64 text.

        Raises:
            Refused: As of `predict`.
        """
        if not threshold <= 1:
            raise Refused(f"threshold: give a number from 0 to 1 (got {threshold}).")
        if threshold < 0:
            threshold = self.detector.card.decision.threshold  # which may be above 1
        if len(texts) > self.limits.max_images:
            raise Refused(f"more than {self.limits.max_images} images; send them in parts.")
        contents = _contents(texts, self.limits)
        parts = [
            self._score(partial(self._prepare, contents[first : first + BATCH], first))
            for first in range(0, len(texts), BATCH)
        ]
        outputs = np.concatenate(parts) if parts else np.empty((0, self.detector.width))
        card = self.detector.card
        probability = expit(self.detector.calibrated(outputs[:, 0]))
        answers = replace(card.decision, threshold=threshold).answer(probability)
        columns = {
            "probability": probability.tolist(),
            "label": answers.words.tolist(),
            "threshold": [threshold] * len(texts),
        }
        if card.attribution:
            columns["attributed"] = card.attributed(answers.label, outputs[:, 1:]).tolist()
        return columns

    def _prepare(self, contents: list[bytes], first_row: int) -> Squares:
        squares = []
        for row, content in enumerate(contents, first_row):
            with _refusing_row(row), decoding:
                squares.append(self.detector.preprocess(content))
        return np.stack(squares)


@contextmanager
def _refusing_row(row: int) -> Iterator[None]:
    try:
        yield
    except BadImage as error:
        raise Refused(f"row {row}: {error}.") from None


def _texts(model_input: pd.DataFrame) -> list[Any]:
    if "image" in model_input:
        return list(model_input["image"])
    if model_input.shape[1] == 1:
        return list(model_input.iloc[:, 0])
    raise Refused("give one column, 'image', of base64 text.")


def _contents(texts: list[Any], limits: ServeOptions) -> list[bytes]:
    """Return the contents of the files if all are within the limits; this decodes no image."""
    contents, total = [], 0
    for row, text in enumerate(texts):
        with _refusing_row(row):
            content, pixels = _decode(text, limits)
        total += pixels
        if total > limits.max_total_pixels:
            most = f"{limits.max_total_pixels:,} pixels"
            raise Refused(f"more than {most} in all images; send them in parts.")
        contents.append(content)
    return contents


def _decode(text: Any, limits: ServeOptions) -> tuple[bytes, int]:
    """Return a file's content and its number of pixels if both are within the limits."""
    if not isinstance(text, str):
        raise BadImage("no base64 text")
    if len(text) > limits.max_mib * 2**20 * 4 // 3 + 4:
        raise BadImage(f"more than {limits.max_mib} MiB")
    try:
        content = base64.b64decode(text.removeprefix("data:").partition("base64,")[2] or text,
                                   validate=True)  # fmt: skip
    except (binascii.Error, ValueError):
        raise BadImage("not base64 text") from None
    image = open_image(content, max_pixels=limits.max_pixels)  # reads the header only
    return content, image.width * image.height


mlflow.models.set_model(ServedDetector())

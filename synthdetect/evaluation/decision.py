"""Calibration and threshold, which are chosen on validation images only."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from synthdetect.datasets.labels import CLASSES
from synthdetect.evaluation.calibration import UNCALIBRATED, Calibration
from synthdetect.evaluation.metrics import choose_threshold
from synthdetect.evaluation.options import CALIBRATIONS, DecisionOptions

UNSURE = "unsure"
"""The answer that is neither label."""


@dataclass(frozen=True)
class Decision:
    """How scores become answers; a detector's card holds the one chosen on its validation images.

    Attributes:
        calibration: Map from the network's logits to calibrated ones.
        threshold: The lowest probability at which the answer is synthetic.
        unsure: Half width of the band around the threshold in which the answer is "unsure".
    """

    calibration: Calibration = UNCALIBRATED
    threshold: float = 0.5
    unsure: float = 0.0

    def answer(self, probability: npt.ArrayLike) -> "Answers":
        """Return the answers for probabilities, in their shape."""
        p = np.asarray(probability, dtype=np.float64)
        return Answers(
            (p >= self.threshold).astype(np.int8), np.abs(p - self.threshold) < self.unsure
        )

    def describe(self) -> dict[str, float]:
        """Return threshold and calibration as numbers by name, for the record."""
        return {"threshold": self.threshold, **self.calibration.describe()}


class Answers(NamedTuple):
    """Answers of a decision.

    Attributes:
        label: int8; 1 (synthetic) where the probability reaches the threshold, else 0 (real).
        unsure: bool; whether the probability lies within the band around the threshold.
    """

    label: npt.NDArray[np.int8]
    unsure: npt.NDArray[np.bool_]

    @property
    def words(self) -> npt.NDArray[np.object_]:
        """The answers as "real", "synthetic" or "unsure"."""
        labels = np.array(CLASSES, dtype=object)[self.label]
        return np.where(self.unsure, UNSURE, labels)


def decide(options: DecisionOptions, labels: npt.ArrayLike, logits: npt.ArrayLike) -> Decision:
    """Fit a calibration and choose a threshold.

    Args:
        options: methods of calibration and of choosing the threshold.
        labels: labels of validation or out-of-fold images, never of test images.
        logits: the network's logits of these images.
    """
    calibration = CALIBRATIONS[options.calibration].load()(labels, logits)
    threshold = choose_threshold(
        labels, calibration(logits), options.threshold_rule, options.max_fpr
    )
    return Decision(calibration, threshold, options.unsure)

"""Calibration and threshold, which are chosen on validation images only."""

from dataclasses import dataclass

import numpy.typing as npt

from synthdetect.config import DecisionOptions
from synthdetect.evaluation.calibration import CALIBRATIONS, UNCALIBRATED, Calibration
from synthdetect.evaluation.metrics import choose_threshold


@dataclass(frozen=True)
class Decision:
    """How a detector's logits become labels.

    Attributes:
        calibration: calibration of the network's logits.
        threshold: lowest probability of images that are classified as synthetic.
        unsure: images whose probability lies less than this from the threshold are "unsure".
    """

    calibration: Calibration = UNCALIBRATED
    threshold: float = 0.5
    unsure: float = 0.0


def decide(options: DecisionOptions, labels: npt.ArrayLike, logits: npt.ArrayLike) -> Decision:
    """Fit a calibration and choose a threshold.

    Args:
        options: methods of calibration and of choosing the threshold.
        labels: labels of validation or out-of-fold images, never of test images.
        logits: the network's logits of these images.
    """
    calibration = CALIBRATIONS[options.calibration](labels, logits)
    threshold = choose_threshold(labels, calibration(logits), options.threshold, options.max_fpr)
    return Decision(calibration, threshold, options.unsure)

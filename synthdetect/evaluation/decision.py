"""From a score to an answer: calibration and threshold, chosen on validation and nowhere else."""

from dataclasses import dataclass

import numpy.typing as npt

from synthdetect.config import DecisionOptions
from synthdetect.evaluation.calibration import CALIBRATIONS, UNCALIBRATED, Calibration
from synthdetect.evaluation.metrics import choose_threshold


@dataclass(frozen=True)
class Decision:
    """How scores are answered.

    Attributes:
        calibration: from the network's logits to those of the probabilities.
        threshold: the probability from which on an image is called synthetic.
        unsure: the answer is "unsure" where the probability is nearer to the threshold than this.
    """

    calibration: Calibration = UNCALIBRATED
    threshold: float = 0.5
    unsure: float = 0.0


def decide(options: DecisionOptions, labels: npt.ArrayLike, logits: npt.ArrayLike) -> Decision:
    """Fit calibration and threshold.

    Args:
        options: how.
        labels: of validation images (or those out of fold), never of test images.
        logits: the network's, of the same images.
    """
    calibration = CALIBRATIONS[options.calibration](labels, logits)
    threshold = choose_threshold(labels, calibration(logits), options.threshold, options.max_fpr)
    return Decision(calibration, threshold, options.unsure)

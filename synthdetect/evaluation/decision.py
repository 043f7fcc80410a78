"""Calibration and threshold, which are chosen on validation images only."""

from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.special import logit

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
        prior: The share of synthetic images that calibrated probabilities presume: that among the
            images on which the calibration was fitted. None if it is unknown.
    """

    calibration: Calibration = UNCALIBRATED
    threshold: float = 0.5
    unsure: float = 0.0
    prior: float | None = None

    def answer(self, probability: npt.ArrayLike) -> "Answers":
        """Return the answers for probabilities, in their shape."""
        p = np.asarray(probability, dtype=np.float64)
        return Answers(
            (p >= self.threshold).astype(np.int8), np.abs(p - self.threshold) < self.unsure
        )

    def with_prior(self, prior: float) -> "Decision":
        """Return the decision for images of which another share is synthetic.

        Calibrated logits are shifted by the difference of the logits of the two priors, which for
        two classes are the adjusted posterior probabilities of Saerens, Latinne and Decaestecker,
        "Adjusting the Outputs of a Classifier to New a Priori Probabilities: A Simple Procedure",
        Neural Computation 14 (2002), section 2. It presumes that the images of either class are
        otherwise like those of validation. The threshold, a probability, stays.

        Args:
            prior: The expected share of synthetic images, between 0 and 1.

        Raises:
            ValueError: If the prior of this decision is unknown.
        """
        if self.prior is None:
            raise ValueError("the prior of the decision is unknown")
        shift = float(logit(prior) - logit(self.prior))
        return replace(self, calibration=self.calibration.shifted(shift), prior=prior)

    def describe(self) -> dict[str, float]:
        """Return threshold, prior (if known) and calibration as numbers by name, for the record."""
        prior = {} if self.prior is None else {"prior": self.prior}
        return {"threshold": self.threshold, **prior, **self.calibration.describe()}


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
    return Decision(calibration, threshold, options.unsure, prior_of(labels))


def prior_of(labels: npt.ArrayLike) -> float | None:
    """Return the share of synthetic images; None for images of one class, which do not tell it."""
    share = float(np.mean(np.asarray(labels, dtype=np.float64)))
    return share if 0 < share < 1 else None

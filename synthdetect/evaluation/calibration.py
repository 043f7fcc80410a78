"""Calibration of logits by monotone functions that are fitted on validation images."""

from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize, minimize_scalar
from scipy.special import log_expit, logit
from sklearn.isotonic import IsotonicRegression

from synthdetect.system.arrays import FloatArray

_LIMITS = (0.05, 20.0)  # of the temperature
_LARGEST = 1e300  # excludes infinity, and integers too large for a float


@dataclass(frozen=True)
class Calibration:
    """Map of raw to calibrated logits; never decreasing, so it preserves the order of scores.

    Attributes:
        slope: factor of the logit, the inverse of the temperature.
        offset: summand after the multiplication.
        knots: if not empty, pairs of a raw and its calibrated logit, both increasing, between which
            logits are interpolated linearly. Logits beyond the knots take the value of the nearest
            one. Slope and offset are then unused.
    """

    slope: float = 1.0
    offset: float = 0.0
    knots: tuple[tuple[float, float], ...] = ()

    def __call__(self, logits: npt.ArrayLike) -> FloatArray:
        """Return calibrated log-odds of "synthetic", in the shape of `logits`."""
        x = np.asarray(logits, dtype=np.float64)
        if self.knots:
            before, after = np.array(self.knots).T
            return np.asarray(np.interp(x, before, after))
        return self.slope * x + self.offset

    def shifted(self, by: float) -> "Calibration":
        """Return the map followed by the addition of a number to every calibrated logit."""
        if self.knots:
            return replace(self, knots=tuple((before, after + by) for before, after in self.knots))
        return replace(self, offset=self.offset + by)

    @property
    def sound(self) -> bool:
        """Whether all numbers are finite and the map never decreases (for one read from a file)."""
        numbers = [self.slope, self.offset, *(number for knot in self.knots for number in knot)]
        if not all(type(n) in (int, float) and abs(n) <= _LARGEST for n in numbers):
            return False
        rising = all(a[0] < b[0] and a[1] <= b[1] for a, b in pairwise(self.knots))
        return self.slope > 0 and rising

    def describe(self) -> dict[str, float]:
        """Return its parameters by name, for logging."""
        if self.knots:
            return {"knots": float(len(self.knots))}
        if self.offset:
            return {"slope": self.slope, "offset": self.offset}
        return {"temperature": 1 / self.slope}


UNCALIBRATED = Calibration()


def fit_temperature(labels: npt.ArrayLike, logits: npt.ArrayLike) -> Calibration:
    """Fit a temperature between 0.05 and 20 that maximises the likelihood of the labels.

    Dividing by a temperature preserves the order of scores and so the AUC. A temperature above 1
    means that the network was overconfident. Guo et al., "On Calibration of Modern Neural
    Networks", ICML 2017, section 4.2.

    Args:
        labels: labels of validation images, shape (images,), 0 or 1.
        logits: their raw logits, shape (images,).
    """
    y, x = _checked(labels, logits)
    sign = np.where(y, 1.0, -1.0)

    def loss(log_temperature: float) -> float:
        return float(-log_expit(sign * x / np.exp(log_temperature)).mean())

    low, high = np.log(_LIMITS)
    best = minimize_scalar(loss, bounds=(low, high), method="bounded").x
    return Calibration(slope=float(np.exp(-best)))


def fit_platt(labels: npt.ArrayLike, logits: npt.ArrayLike) -> Calibration:
    """Fit a positive slope and an offset by Platt scaling.

    The targets are smoothed by Laplace's rule. Platt, "Probabilistic Outputs for Support Vector
    Machines", 1999, section 2.2.

    Args:
        labels: as in `fit_temperature`.
        logits: as in `fit_temperature`.
    """
    y, x = _checked(labels, logits)
    positives, negatives = y.sum(), (~y).sum()
    target = np.where(y, (positives + 1) / (positives + 2), 1 / (negatives + 2))
    scale = max(float(np.abs(x).max()), 1e-12)

    def loss(parameters: FloatArray) -> float:
        z = parameters[0] * x / scale + parameters[1]
        return float(-(target * log_expit(z) + (1 - target) * log_expit(-z)).mean())

    bounds = [(scale / _LIMITS[1], scale / _LIMITS[0]), (None, None)]
    found = minimize(loss, np.array([scale, 0.0]), method="L-BFGS-B", bounds=bounds).x
    return Calibration(slope=float(found[0]) / scale, offset=float(found[1]))


def fit_isotonic(labels: npt.ArrayLike, logits: npt.ArrayLike) -> Calibration:
    """Fit a non-decreasing step function by isotonic regression.

    Scores on one step become equal, so the AUC can change slightly, and hundreds of images are
    needed. Probabilities stay 1 / (images + 2) away from 0 and 1. Zadrozny and Elkan, "Transforming
    Classifier Scores into Accurate Multiclass Probability Estimates", KDD 2002.

    Args:
        labels: as in `fit_temperature`.
        logits: as in `fit_temperature`.
    """
    y, x = _checked(labels, logits)
    edge = 1 / (len(y) + 2)
    steps = IsotonicRegression(y_min=edge, y_max=1 - edge).fit(x, y)
    after = logit(steps.y_thresholds_)
    return Calibration(knots=tuple(zip(steps.X_thresholds_.tolist(), after.tolist(), strict=True)))


def no_calibration(labels: npt.ArrayLike, logits: npt.ArrayLike) -> Calibration:
    """Return the identity."""
    return UNCALIBRATED


def _checked(
    labels: npt.ArrayLike, logits: npt.ArrayLike
) -> tuple[npt.NDArray[np.bool_], FloatArray]:
    return np.asarray(labels).astype(bool), np.asarray(logits, dtype=np.float64)

"""Making probabilities mean what they say, by a map of logits that is fitted on validation."""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize, minimize_scalar
from scipy.special import log_expit, logit
from sklearn.isotonic import IsotonicRegression

from synthdetect.system.arrays import FloatArray

_LIMITS = (0.05, 20.0)
_LARGEST = 1e300  # beyond are infinity and whole numbers that are no floats; nan is not within


@dataclass(frozen=True)
class Calibration:
    """From the network's logits to calibrated ones; never falling, so no order is turned round.

    Attributes:
        slope: what a logit is multiplied by: one over the temperature.
        offset: what is then added.
        knots: if any, pairs of a logit and the calibrated logit it becomes, both rising; between
            them one goes straight, beyond them the last one holds. Slope and offset are not used.
    """

    slope: float = 1.0
    offset: float = 0.0
    knots: tuple[tuple[float, float], ...] = ()

    def __call__(self, logits: npt.ArrayLike) -> FloatArray:
        """Calibrated log-odds of "synthetic", in the shape of `logits`."""
        x = np.asarray(logits, dtype=np.float64)
        if self.knots:
            before, after = np.array(self.knots).T
            return np.asarray(np.interp(x, before, after))
        return self.slope * x + self.offset

    @property
    def sound(self) -> bool:
        """Whether it is made of finite numbers and never falls, as one read from a file may not."""
        numbers = [self.slope, self.offset, *(number for knot in self.knots for number in knot)]
        if not all(type(n) in (int, float) and abs(n) <= _LARGEST for n in numbers):
            return False
        rising = all(a[0] < b[0] and a[1] <= b[1] for a, b in pairwise(self.knots))
        return self.slope > 0 and rising

    def describe(self) -> dict[str, float]:
        """Its numbers by name, for the record."""
        if self.knots:
            return {"knots": float(len(self.knots))}
        if self.offset:
            return {"slope": self.slope, "offset": self.offset}
        return {"temperature": 1 / self.slope}


UNCALIBRATED = Calibration()


def fit_temperature(labels: npt.ArrayLike, logits: npt.ArrayLike) -> Calibration:
    """Divide by the temperature that makes the labels likeliest, from 0.05 to 20.

    One number cannot change the order of scores, so AUC stays as it is; above 1 the network was too
    sure. Guo et al., "On Calibration of Modern Neural Networks", ICML 2017, section 4.2.

    Args:
        labels: shape (images,), 0 or 1, of validation images.
        logits: their scores.
    """
    y, x = _checked(labels, logits)
    sign = np.where(y, 1.0, -1.0)

    def loss(log_temperature: float) -> float:
        return float(-log_expit(sign * x / np.exp(log_temperature)).mean())

    low, high = np.log(_LIMITS)
    best = minimize_scalar(loss, bounds=(low, high), method="bounded").x
    return Calibration(slope=float(np.exp(-best)))


def fit_platt(labels: npt.ArrayLike, logits: npt.ArrayLike) -> Calibration:
    """A slope and an offset: temperature, and a correction of how often images are synthetic.

    The targets lie a little inside 0 and 1, by Laplace's rule. Platt, "Probabilistic Outputs for
    Support Vector Machines", 1999, section 2.2. The slope is kept positive.
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
    """The never-falling steps that fit the labels best.

    Scores on one step become equal, so AUC can change a little, and hundreds of images are needed.
    Probabilities stay 1 / (images + 2) away from 0 and 1, which no sample shows. Zadrozny and
    Elkan, "Transforming Classifier Scores into Accurate Multiclass Probability Estimates",
    KDD 2002.
    """
    y, x = _checked(labels, logits)
    edge = 1 / (len(y) + 2)
    steps = IsotonicRegression(y_min=edge, y_max=1 - edge).fit(x, y)
    after = logit(steps.y_thresholds_)
    return Calibration(knots=tuple(zip(steps.X_thresholds_.tolist(), after.tolist(), strict=True)))


def no_calibration(labels: npt.ArrayLike, logits: npt.ArrayLike) -> Calibration:
    """Leave the network's logits as they are."""
    return UNCALIBRATED


def _checked(
    labels: npt.ArrayLike, logits: npt.ArrayLike
) -> tuple[npt.NDArray[np.bool_], FloatArray]:
    return np.asarray(labels).astype(bool), np.asarray(logits, dtype=np.float64)

"""Making probabilities mean what they say, by one number fitted on validation."""

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize_scalar
from scipy.special import log_expit

_LIMITS = (0.05, 20.0)


def fit_temperature(labels: npt.ArrayLike, logits: npt.ArrayLike) -> float:
    """The temperature that makes `logits / temperature` likeliest.

    One number cannot change the order of scores, so AUC stays as it is. Guo et al., "On Calibration
    of Modern Neural Networks", ICML 2017, section 4.2.

    Args:
        labels: shape (images,), 0 or 1, of validation images.
        logits: their scores.

    Returns:
        From 0.05 to 20; above 1 the network was too sure.
    """
    y, x = np.asarray(labels).astype(bool), np.asarray(logits, dtype=np.float64)
    sign = np.where(y, 1.0, -1.0)

    def loss(log_temperature: float) -> float:
        return float(-log_expit(sign * x / np.exp(log_temperature)).mean())

    low, high = np.log(_LIMITS)
    return float(np.exp(minimize_scalar(loss, bounds=(low, high), method="bounded").x))

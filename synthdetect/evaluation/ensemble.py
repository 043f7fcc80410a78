"""Ensembles: combination of several detectors' scores, and their agreement.

In all functions, `logits` are calibrated log-odds of "synthetic", shape (models, images), and
`thresholds` are the models' own probability thresholds, shape (models,).
"""

from collections.abc import Sequence
from itertools import combinations

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.special import expit, logit

from synthdetect.evaluation.options import ENSEMBLES
from synthdetect.system.arrays import FloatArray

_EDGE = 1e-12  # thresholds of 0 and 1 have no logit


def mean_logit(logits: FloatArray, thresholds: FloatArray) -> tuple[FloatArray, float]:
    """Sigmoid of the mean logit, and of the mean logit of the thresholds."""
    return expit(logits.mean(axis=0)), float(expit(_logits_of(thresholds).mean()))


def mean_probability(logits: FloatArray, thresholds: FloatArray) -> tuple[FloatArray, float]:
    """Mean probability and mean threshold."""
    return expit(logits).mean(axis=0), float(thresholds.mean())


def median(logits: FloatArray, thresholds: FloatArray) -> tuple[FloatArray, float]:
    """Sigmoid of the median logit, and of the median logit of the thresholds."""
    return expit(np.median(logits, axis=0)), float(expit(np.median(_logits_of(thresholds))))


def vote(logits: FloatArray, thresholds: FloatArray) -> tuple[FloatArray, float]:
    """Share of models that classify the image as synthetic, with a threshold of 0.5."""
    return _labels(logits, thresholds).mean(axis=0), 0.5


def combine(name: str, logits: FloatArray, thresholds: FloatArray) -> tuple[FloatArray, float]:
    """Combine the scores of several models; a single model's scores pass through exactly.

    Args:
        name: A name of `ENSEMBLES`.
        logits: Calibrated logits of shape (models, images).
        thresholds: The threshold of each model, of shape (models,).

    Returns:
        The probabilities, of shape (images,), and the threshold of the combination.
    """
    if len(logits) == 1:
        return expit(logits[0]), float(thresholds[0])
    combined: tuple[FloatArray, float] = ENSEMBLES[name].load()(logits, thresholds)
    return combined


def log_odds(name: str, logits: FloatArray, probability: FloatArray) -> FloatArray:
    """Compute the logit of combined probabilities, shape (images,).

    The mean or median logit is used directly where it was combined, which keeps its digits near
    probabilities of 0 and 1. Unanimous votes have infinite logits.

    Args:
        name: name of the combination in `ENSEMBLES`.
        logits: logits of the models.
        probability: combined probabilities, shape (images,).
    """
    if len(logits) == 1 or name == "mean_logit":
        return np.asarray(logits.mean(axis=0))
    return np.asarray(np.median(logits, axis=0) if name == "median" else logit(probability))


def spread(logits: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Standard deviations of logit and probability over the models, both of shape (images,)."""
    return logits.std(axis=0), expit(logits).std(axis=0)


def agreement(logits: FloatArray, thresholds: FloatArray, names: Sequence[str]) -> pd.DataFrame:
    """Compute the agreement of each pair of models.

    Returns:
        One row per pair: `first` and `second` (names), `same_label` (share of images with equal
        labels) and `spearman` (rank correlation of the scores; nan if one model's are all equal).
    """
    labels = _labels(logits, thresholds)
    ranks = pd.DataFrame(logits.T).corr(method="spearman")
    rows = [
        (names[a], names[b], float((labels[a] == labels[b]).mean()), ranks.iloc[a, b])
        for a, b in combinations(range(len(names)), 2)
    ]
    return pd.DataFrame(rows, columns=["first", "second", "same_label", "spearman"])


def _labels(logits: FloatArray, thresholds: FloatArray) -> npt.NDArray[np.bool_]:
    return np.asarray(expit(logits) >= thresholds[:, None])


def _logits_of(thresholds: FloatArray) -> FloatArray:
    return np.asarray(logit(np.clip(thresholds, _EDGE, 1 - _EDGE)))

"""Several detectors as one: how their answers are combined, and how far they agree.

Everywhere, `logits` are calibrated log-odds of "synthetic", shape (models, images), and
`thresholds` the models' own probabilities from which on an image is called synthetic.
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
    """Sigmoid of the mean logit; so is the threshold, of the mean of the thresholds' logits."""
    return expit(logits.mean(axis=0)), float(expit(_logits_of(thresholds).mean()))


def mean_probability(logits: FloatArray, thresholds: FloatArray) -> tuple[FloatArray, float]:
    """Mean of the probabilities; so is the threshold, of the thresholds."""
    return expit(logits).mean(axis=0), float(thresholds.mean())


def median(logits: FloatArray, thresholds: FloatArray) -> tuple[FloatArray, float]:
    """Sigmoid of the median logit; so is the threshold, of the median of the thresholds' logits."""
    return expit(np.median(logits, axis=0)), float(expit(np.median(_logits_of(thresholds))))


def vote(logits: FloatArray, thresholds: FloatArray) -> tuple[FloatArray, float]:
    """Share of the models that call the image synthetic; half of them (0.5) are enough."""
    return _calls(logits, thresholds).mean(axis=0), 0.5


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
    """The combined logit that belongs to the combined probability, shape (images,).

    It is the mean or median itself where that is what was combined, so that no digits are lost
    near 0 and 1, else the probability's; infinite where all votes are the same.
    """
    if len(logits) == 1 or name == "mean_logit":
        return np.asarray(logits.mean(axis=0))
    return np.asarray(np.median(logits, axis=0) if name == "median" else logit(probability))


def spread(logits: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Standard deviation over the models of logit and of probability, each of shape (images,)."""
    return logits.std(axis=0), expit(logits).std(axis=0)


def agreement(logits: FloatArray, thresholds: FloatArray, names: Sequence[str]) -> pd.DataFrame:
    """How far every two models agree.

    Returns:
        A row a pair: `first` and `second` (their names), `same_label` (share of the images that
        both give one label) and `spearman` (rank correlation of the scores; nan where one model
        scores all images alike).
    """
    calls = _calls(logits, thresholds)
    ranks = pd.DataFrame(logits.T).corr(method="spearman")
    rows = [
        (names[a], names[b], float((calls[a] == calls[b]).mean()), ranks.iloc[a, b])
        for a, b in combinations(range(len(names)), 2)
    ]
    return pd.DataFrame(rows, columns=["first", "second", "same_label", "spearman"])


def _calls(logits: FloatArray, thresholds: FloatArray) -> npt.NDArray[np.bool_]:
    return np.asarray(expit(logits) >= thresholds[:, None])


def _logits_of(thresholds: FloatArray) -> FloatArray:
    return np.asarray(logit(np.clip(thresholds, _EDGE, 1 - _EDGE)))

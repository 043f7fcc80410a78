"""Selection of example images from a predictions table: worst mistakes and correct predictions."""

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.special import logit

from synthdetect.datasets.labels import SYNTHETIC

Rows = npt.NDArray[np.int64]
"""Positions of rows, shape (rows,)."""

_CERTAIN = 750.0
"""Larger than the log-odds of any float64 probability below 1."""


def worst_mistakes(table: pd.DataFrame, threshold: float, count: int) -> Rows:
    """Select the misclassified images with the largest distance to the threshold, in log-odds.

    Args:
        table: predictions table.
        threshold: threshold from which its column `predicted` results.
        count: maximum number of images.

    Returns:
        Positions of rows, worst first.
    """
    cut = np.clip(logit(threshold), -_CERTAIN, _CERTAIN)
    beyond = (table["logit"] - cut) * np.where(table["label"] == SYNTHETIC, -1, 1)
    wrong = np.flatnonzero(table["predicted"] != table["label"])
    return wrong[np.argsort(-beyond.to_numpy()[wrong], kind="stable")][:count]


def sample_hits(table: pd.DataFrame, count: int, *, seed: int) -> Rows:
    """Draw correctly classified images, balanced over classes and over generators in a class.

    Args:
        table: predictions table.
        count: maximum number of images.
        seed: seed of the draw.

    Returns:
        Positions of rows, in the order of drawing.
    """
    correct = np.flatnonzero(table["predicted"] == table["label"])
    drawn = np.random.default_rng(seed).permutation(correct)
    rows = table[["label", "generator"]].iloc[drawn].assign(position=drawn)
    rows["turn"] = rows.groupby(["label", "generator"]).cumcount()
    rows = rows.sort_values("turn", kind="stable")
    rows["turn"] = rows.groupby("label").cumcount()
    rows = rows.sort_values(["turn", "label"], kind="stable")
    chosen: Rows = rows["position"].to_numpy()[:count]
    return chosen

"""Which images of a predictions table to look at: the worst mistakes, and a sample of hits."""

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.special import logit

from synthdetect.datasets.labels import SYNTHETIC

Rows = npt.NDArray[np.int64]

_CERTAIN = 750.0
"""Beyond the log-odds of every probability that a float64 can hold, but for 0 and 1."""


def worst_mistakes(table: pd.DataFrame, threshold: float, count: int) -> Rows:
    """The images furthest on the wrong side of the threshold, in log-odds.

    Args:
        table: predictions.
        threshold: by which its column `predicted` was made.
        count: at most so many.

    Returns:
        Positions of rows, the worst first.
    """
    cut = np.clip(logit(threshold), -_CERTAIN, _CERTAIN)
    beyond = (table["logit"] - cut) * np.where(table["label"] == SYNTHETIC, -1, 1)
    wrong = np.flatnonzero(table["predicted"] != table["label"])
    return wrong[np.argsort(-beyond.to_numpy()[wrong], kind="stable")][:count]


def sample_hits(table: pd.DataFrame, count: int, *, seed: int) -> Rows:
    """Right answers drawn at random, the classes in turn and, within one, the generators in turn.

    Args:
        table: predictions.
        count: at most so many.
        seed: of the draw.

    Returns:
        Positions of rows.
    """
    right = np.flatnonzero(table["predicted"] == table["label"])
    drawn = np.random.default_rng(seed).permutation(right)
    rows = table[["label", "generator"]].iloc[drawn].assign(position=drawn)
    rows["turn"] = rows.groupby(["label", "generator"]).cumcount()
    rows = rows.sort_values("turn", kind="stable")
    rows["turn"] = rows.groupby("label").cumcount()
    rows = rows.sort_values(["turn", "label"], kind="stable")
    chosen: Rows = rows["position"].to_numpy()[:count]
    return chosen

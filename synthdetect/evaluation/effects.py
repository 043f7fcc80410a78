"""What each of several crossed changes does by itself: matched differences with their intervals."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.stats import t as student

from synthdetect.datasets.splits import group_codes
from synthdetect.evaluation.metrics import metrics, resampled
from synthdetect.system.arrays import FloatArray


@dataclass(frozen=True)
class Cell:
    """One training of a crossed study, judged on images that all cells share.

    Attributes:
        levels: by factor, what this training had; the seed is a factor like the others.
        predictions: of the test images; the same rows in the same order in every cell.
        threshold: from this training's validation.
    """

    levels: Mapping[str, str]
    predictions: pd.DataFrame
    threshold: float


def effects(
    cells: Sequence[Cell], factors: Mapping[str, Sequence[str]], metric: str, *, seed: int
) -> pd.DataFrame:
    """The mean change of a metric when one factor changes and everything else stays.

    Pairs of cells that differ in that factor alone are subtracted. The interval covers both that
    the test's sources are a sample (bootstrap over sources, the same draws for all cells) and that
    the change differs from pair to pair, since trainings are random and factors act together: the
    variances are added and Student's t with pairs - 1 degrees of freedom is used, which errs on
    the wide side. A single pair shows only the first, with the normal quantile.

    Args:
        cells: the trainings.
        factors: by name, the levels; the first is what the others are compared with.
        metric: a name of `METRICS`.
        seed: of the bootstrap.

    Returns:
        A row a factor and level beyond the first: `factor`, `level`, `against`, `metric`, `effect`,
        `low`, `high` (95 %), `pairs`, and `spread` (standard deviation over the pairs).
    """
    values, draws = [], []
    for cell in cells:
        table = cell.predictions
        args = (table["label"], table["logit"], cell.threshold)
        everything = {"": np.ones(len(table), dtype=bool)}
        values.append(metrics(*args)[metric])
        draws.append(resampled(*args, group_codes(table), everything, seed=seed)[""][metric])
    rows = []
    for factor, (first, *others) in factors.items():
        for level in others:
            pairs = list(_pairs(cells, factor, first, level))
            changes = np.array([values[b] - values[a] for a, b in pairs])
            drawn = np.mean([draws[b] - draws[a] for a, b in pairs], axis=0)
            low, high, spread = _interval(changes, drawn)
            rows.append((factor, level, first, metric, changes.mean(), low, high, len(pairs),
                         spread))  # fmt: skip
    columns = ["factor", "level", "against", "metric", "effect", "low", "high", "pairs", "spread"]
    return pd.DataFrame(rows, columns=columns)


def _pairs(cells: Sequence[Cell], factor: str, first: str, level: str) -> Iterator[tuple[int, int]]:
    """Positions of cells that differ in one factor alone."""
    others = [{k: v for k, v in cell.levels.items() if k != factor} for cell in cells]
    for a, before in enumerate(cells):
        for b, after in enumerate(cells):
            changed = (before.levels[factor], after.levels[factor]) == (first, level)
            if changed and others[a] == others[b]:
                yield a, b


def _interval(changes: FloatArray, drawn: FloatArray) -> tuple[float, float, float]:
    effect, sources = changes.mean(), float(np.nanvar(drawn, ddof=1))
    if len(changes) == 1:
        half = 1.96 * math.sqrt(sources)
        return effect - half, effect + half, math.nan
    spread = float(changes.std(ddof=1))
    quantile = float(student.ppf(0.975, len(changes) - 1))
    half = quantile * math.sqrt(spread**2 / len(changes) + sources)
    return effect - half, effect + half, spread

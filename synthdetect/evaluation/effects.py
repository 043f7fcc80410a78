"""Main effects of the factors of a crossed study, from matched pairs of trainings."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from synthdetect.datasets.splits import group_codes
from synthdetect.evaluation.estimates import Mean, independent_sources
from synthdetect.evaluation.metrics import bootstrap_metrics, metrics
from synthdetect.system.arrays import FloatArray

_LEVEL = 0.95


@dataclass(frozen=True)
class Cell:
    """One training of a crossed study, evaluated on images that all cells share.

    Attributes:
        levels: the training's level by factor; the seed is a factor like any other.
        predictions: predictions table of the test images, with the same rows in the same order in
            every cell.
        threshold: threshold chosen on this training's validation images.
    """

    levels: Mapping[str, str]
    predictions: pd.DataFrame
    threshold: float


def effects(
    cells: Sequence[Cell], factors: Mapping[str, Sequence[str]], metric: str, *, seed: int
) -> pd.DataFrame:
    """Estimate how a metric changes when one factor changes and all others stay the same.

    The effect is the mean difference over all pairs of cells that differ in this factor alone. Its
    interval is that of `estimates.Mean`: it covers the sampling of the test's sources and the
    variation from pair to pair, which comes from randomness in training and from interactions with
    the other factors. Pairs count as independent trainings, also where they share a seed. With a
    single pair or a single source the interval is nan.

    Args:
        cells: the trainings.
        factors: levels by factor; each further level is compared with the first.
        metric: a name in `METRICS`.
        seed: seed of the bootstrap over sources.

    Returns:
        One row per factor and further level: `factor`, `level`, `against` (the first level),
        `metric`, `effect`, `low` and `high` (95 % confidence interval), `pairs` (their number) and
        `spread` (standard deviation over the pairs; nan for a single one).
    """
    measured = [_replicates(cell, metric, seed) for cell in cells]
    sources = independent_sources(cells[0].predictions)
    rows = []
    for factor, (first, *others) in factors.items():
        for level in others:
            pairs = _pairs(cells, factor, first, level)
            differences = np.stack([measured[b] - measured[a] for a, b in pairs])
            one_fold = np.zeros(len(differences))  # all cells share their data, so each pair counts
            estimate = Mean.of(differences, one_fold, sources)
            spread = differences[:, 0].std(ddof=1) if len(differences) > 1 else math.nan
            rows.append((factor, level, first, metric, estimate.value, *estimate.interval(_LEVEL),
                         len(differences), spread))  # fmt: skip
    columns = ["factor", "level", "against", "metric", "effect", "low", "high", "pairs", "spread"]
    return pd.DataFrame(rows, columns=columns)


def _replicates(cell: Cell, metric: str, seed: int) -> FloatArray:
    """The metric as measured, then in each bootstrap replicate, shape (1 + replicates,)."""
    table = cell.predictions
    args = (table["label"], table["logit"], cell.threshold)
    everything = {"": np.ones(len(table), dtype=bool)}
    draws = bootstrap_metrics(*args, group_codes(table), everything, seed=seed)[""][metric]
    return np.append(metrics(*args)[metric], draws)


def _pairs(cells: Sequence[Cell], factor: str, first: str, level: str) -> Iterator[tuple[int, int]]:
    """Positions of cells that differ in one factor alone."""
    others = [{k: v for k, v in cell.levels.items() if k != factor} for cell in cells]
    for a, before in enumerate(cells):
        for b, after in enumerate(cells):
            differs = (before.levels[factor], after.levels[factor]) == (first, level)
            if differs and others[a] == others[b]:
                yield a, b

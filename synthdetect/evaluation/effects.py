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

PHOTOGRAPHS = "photographs"
"""What the interval of an effect covers if it is estimated from a single pair of trainings."""


@dataclass(frozen=True)
class Cell:
    """One training of a crossed study, evaluated on images that all cells share.

    Attributes:
        levels: the training's level by factor.
        seed: the training's seed, which it shares with one training of every other combination of
            levels.
        predictions: predictions table of the test images, with the same rows in the same order in
            every cell.
        threshold: threshold chosen on this training's validation images.
    """

    levels: Mapping[str, str]
    seed: int
    predictions: pd.DataFrame
    threshold: float


@dataclass(frozen=True)
class Change:
    """A change of one factor from a level to another.

    Attributes:
        name: name of the change, for example of the factor.
        factor: the factor.
        against: the level before.
        level: the level after.
    """

    name: str
    factor: str
    against: str
    level: str


def replicates(cells: Sequence[Cell], names: Sequence[str], *, seed: int) -> dict[str, FloatArray]:
    """Measure cells on their images and on bootstrap replicates of the sources of these.

    Args:
        cells: the trainings.
        names: names in `METRICS`.
        seed: seed of the bootstrap, whose replicates all cells share.

    Returns:
        By metric an array of shape (cells, 1 + replicates): as measured, then in each replicate.
    """
    measured = [_replicates(cell, names, seed) for cell in cells]
    return {name: np.stack([values[name] for values in measured]) for name in names}


def effects(
    cells: Sequence[Cell],
    changes: Sequence[Change],
    measured: Mapping[str, FloatArray],
) -> pd.DataFrame:
    """Estimate how metrics change when one factor changes and all others stay the same.

    The effect is the mean difference over all pairs of cells of the same seed that differ in this
    factor alone. Its interval is that of `estimates.Mean`. It covers the sampling of the test's
    sources and, with several seeds, the randomness of training: the pairs of one seed share their
    initial weights, so that only their mean counts as an independent result. With one seed and
    several pairs, each pair counts. The interval then covers the variation between the combinations
    of the other factors, and leaves out what another start of training would change. With a single
    pair it covers the sources alone. With a single source it is nan.

    Args:
        cells: the trainings.
        changes: the changes of which the effects are estimated.
        measured: metrics of the cells, as `replicates` returns them.

    Returns:
        One row per change and metric: `change` (its name), `factor`, `level`, `against`, `metric`,
        `effect`, `low` and `high` (95 % confidence interval), `pairs` (their number), `spread`
        (standard deviation over the pairs; nan for a single one) and `covers` (what the interval
        covers).
    """
    sources = independent_sources(cells[0].predictions)
    rows = []
    for change in changes:
        pairs = list(_pairs(cells, change))
        seeds = np.array([cells[a].seed for a, _ in pairs])
        for metric, values in measured.items():
            differences = np.stack([values[b] - values[a] for a, b in pairs])
            estimate = Mean.of(differences, seeds, sources)
            covers = f"{PHOTOGRAPHS} and trainings"
            if len(pairs) == 1:
                estimate, covers = Mean(estimate.value, estimate.parts[1:]), PHOTOGRAPHS
            elif len(set(seeds)) == 1:
                covers = f"{PHOTOGRAPHS} and combinations"
            spread = differences[:, 0].std(ddof=1) if len(differences) > 1 else math.nan
            rows.append((change.name, change.factor, change.level, change.against, metric,
                         estimate.value, *estimate.interval(_LEVEL), len(differences), spread,
                         covers))  # fmt: skip
    columns = ["change", "factor", "level", "against", "metric", "effect", "low", "high", "pairs",
               "spread", "covers"]  # fmt: skip
    return pd.DataFrame(rows, columns=columns)


def _replicates(cell: Cell, names: Sequence[str], seed: int) -> dict[str, FloatArray]:
    """The metrics as measured, then in each bootstrap replicate, of shape (1 + replicates,)."""
    table = cell.predictions
    args = (table["label"], table["logit"], cell.threshold)
    everything = {"": np.ones(len(table), dtype=bool)}
    draws = bootstrap_metrics(*args, group_codes(table), everything, seed=seed)[""]
    values = metrics(*args)
    return {name: np.append(values[name], draws[name]) for name in names}


def _pairs(cells: Sequence[Cell], change: Change) -> Iterator[tuple[int, int]]:
    """Positions of cells of one seed that differ in one factor alone."""
    others = [
        (cell.seed, {k: v for k, v in cell.levels.items() if k != change.factor}) for cell in cells
    ]
    for a, before in enumerate(cells):
        for b, after in enumerate(cells):
            levels = before.levels[change.factor], after.levels[change.factor]
            if levels == (change.against, change.level) and others[a] == others[b]:
                yield a, b

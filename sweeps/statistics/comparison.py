"""Every strategy against the baseline, outcome by outcome: differences, intervals, p-values.

What is compared are two ways to train, not two networks, so an interval covers both the test's
photographs and the trainings (`estimates.Mean`). It speaks of this pool of training data: of other
folds and seeds, not of other pools.

The two **primary** outcomes are the changes of AUC in-distribution and on unseen generators.
Their p-values are corrected together over all strategies (Holm); a verdict rests on them. Every
other outcome is secondary, and corrected over the strategies within its own family. Simultaneous
intervals have Bonferroni's level, since Holm's have no simple form: a difference may hold by Holm
although its simultaneous interval just includes none, never the other way round.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np
import numpy.typing as npt
import pandas as pd

from sweeps.statistics.final_fits import FinalFit, Place, Side
from synthdetect.datasets.splits import group_codes
from synthdetect.evaluation.estimates import (
    Estimate,
    Mean,
    Shares,
    Spread,
    holm,
    independent_sources,
    per_unit,
)
from synthdetect.evaluation.metrics import bootstrap_weights, weighted_metrics
from synthdetect.system.arrays import FloatArray

PARTS = {"seen": "in-distribution", "unseen": "on unseen generators"}
"""The parts of the test, in words."""

_METRICS = {"auc": "AUC", "accuracy": "accuracy", "f1": "F1", "ece": "ECE", "nll": "NLL"}
_RAW_METRICS = {"ece": "ECE before calibration", "nll": "NLL before calibration"}
_CHANGES = {**_METRICS, **{f"raw_{metric}": label for metric, label in _RAW_METRICS.items()}}
_SCALARS: dict[str, Callable[[FinalFit], float]] = {
    "gap": lambda training: training.train_auc - training.val_auc,
    "seconds": lambda training: training.seconds_per_image,
    # What fits into memory that the process had already shows no peak of its own.
    "memory": lambda training: training.peak_mib if training.peak_mib > 0 else np.nan,
}


@dataclass(frozen=True)
class Difference:
    """How one strategy differs from the baseline in one outcome.

    Attributes:
        baseline: its mean over trainings (for a spread, the standard deviation; for trials, the
            share that failed).
        strategy: likewise.
        value: strategy minus baseline, or their ratio where the outcome is one.
        low: bound of the interval of this difference alone.
        high: likewise.
        wide_low: bound of the interval that holds for all differences of the family together.
        wide_high: likewise.
        source_low: bound of the paired percentile bootstrap by photograph, for these very
            trainings; nan for what is not measured on images. Narrower: it leaves out that other
            trainings would have come out otherwise.
        source_high: likewise.
        p: of the difference alone.
        p_adjusted: corrected over the family.
        tests: differences in the family.
    """

    baseline: float
    strategy: float
    value: float
    low: float
    high: float
    wide_low: float
    wide_high: float
    source_low: float
    source_high: float
    p: float
    p_adjusted: float
    tests: int

    @property
    def detectable(self) -> float:
        """Half the simultaneous interval: smaller differences would not have been seen."""
        return (self.wide_high - self.wide_low) / 2


@dataclass(frozen=True)
class Comparison:
    """One strategy against the baseline.

    Attributes:
        strategy: its name.
        baseline: its name.
        trainings: final trainings that both sides have, by fold and seed.
        independent: of these, how many count (one a fold; if there is one fold, one a seed).
        sources: independent photographs of the test, by part.
        lost: final trainings of the strategy that diverged or failed.
        baseline_lost: of the baseline.
        trials: of the strategy in tuning.
        differences: by outcome, in the order of `OUTCOMES`.
    """

    strategy: str
    baseline: str
    trainings: int
    independent: int
    sources: dict[str, int]
    lost: int
    baseline_lost: int
    trials: int
    differences: dict[str, Difference]


@dataclass(frozen=True)
class _Pairs:
    """Baseline and strategy, training by training.

    Attributes:
        folds: of each pair, shape (trainings,).
        baseline: quantities, shape (trainings, 1 + replicates): as measured, then under each draw
            of photographs; of what is not measured on images, (trainings, 1).
        strategy: likewise.
        sources: photographs by part.
        trials: failed and all, of strategy and baseline.
    """

    folds: npt.NDArray[np.int64]
    baseline: dict[str, FloatArray]
    strategy: dict[str, FloatArray]
    sources: dict[str, int]
    trials: tuple[tuple[int, int], tuple[int, int]]

    @property
    def independent(self) -> int:
        """How many pairs count."""
        return len(per_unit(self.folds[:, None].astype(np.float64), self.folds))

    def units(self, quantity: str) -> tuple[FloatArray, FloatArray]:
        """Of strategy and baseline: a value for each independent training."""
        return (
            per_unit(self.strategy[quantity], self.folds)[:, 0],
            per_unit(self.baseline[quantity], self.folds)[:, 0],
        )


@dataclass(frozen=True)
class _Measured:
    """An outcome of one strategy before it is corrected for the others."""

    strategy: float
    baseline: float
    estimate: Estimate
    draws: FloatArray


_NO_DRAWS: FloatArray = np.empty(0)
_NOTHING = _Measured(np.nan, np.nan, Mean(np.nan, ()), _NO_DRAWS)


@dataclass(frozen=True)
class Outcome:
    """Something in which a strategy can differ.

    Attributes:
        label: for people.
        family: outcomes of one family have their p-values corrected together.
        is_ratio: whether the difference is a ratio (estimated as a log) or a change.
        measure: what it is for one strategy.
    """

    label: str
    family: str
    is_ratio: bool
    measure: Callable[[_Pairs], _Measured]


def _change(quantity: str, part: str | None, *, log: bool = False) -> Callable[[_Pairs], _Measured]:
    def measure(pairs: _Pairs) -> _Measured:
        if not pairs.independent:
            return _NOTHING
        strategy, baseline = pairs.strategy[quantity], pairs.baseline[quantity]
        changes = np.log(strategy / baseline) if log else strategy - baseline
        estimate = Mean.of(changes, pairs.folds, pairs.sources[part] if part else None)
        draws = per_unit(changes, pairs.folds)[:, 1:].mean(axis=0)
        here, there = pairs.units(quantity)
        return _Measured(here.mean(), there.mean(), estimate, draws)

    return measure


def _spread(quantity: str) -> Callable[[_Pairs], _Measured]:
    def measure(pairs: _Pairs) -> _Measured:
        if not pairs.independent:
            return _NOTHING
        units = pairs.units(quantity)
        here, there = (u.std(ddof=1) if len(u) > 1 else np.nan for u in units)
        return _Measured(here, there, Spread.of(*units), _NO_DRAWS)

    return measure


def _failures(pairs: _Pairs) -> _Measured:
    here, there = (failed / of if of else np.nan for failed, of in pairs.trials)
    return _Measured(here, there, Shares(*pairs.trials), _NO_DRAWS)


PRIMARY = "primary"
OUTCOMES: dict[str, Outcome] = {
    **{
        f"{metric}_{part}": Outcome(
            f"{label} {where}",
            PRIMARY if metric == "auc" else f"{metric}_{part}",
            False,
            _change(f"{metric}_{part}", part),
        )
        for metric, label in _CHANGES.items()
        for part, where in PARTS.items()
    },
    "gap": Outcome("train minus validation AUC", "gap", False, _change("gap", None)),
    **{
        f"spread_{part}": Outcome(f"spread of AUC {where}", "spread", True, _spread(f"auc_{part}"))
        for part, where in PARTS.items()
    },
    "seconds": Outcome(
        "training time per image", "seconds", True, _change("seconds", None, log=True)
    ),
    "memory": Outcome("peak memory", "memory", True, _change("memory", None, log=True)),
    "failed_trials": Outcome("share of failed trials", "failed_trials", False, _failures),
}
"""What is compared, by name, in the order of reports."""


def compare(
    baseline: Side,
    strategies: Sequence[Side],
    *,
    level: float = 0.95,
    replicates: int = 1000,
    seed: int = 0,
) -> dict[str, Comparison]:
    """Compare strategies with the baseline, paired by training, photograph and image.

    A training that one side lost is left out on the other too, and counted in the comparison.

    Args:
        baseline: what the strategies are measured against.
        strategies: at least one; the correction is for as many.
        level: of the intervals; 1 - level is the error rate that p-values are corrected to.
        replicates: bootstrap draws of the test's photographs.
        seed: of the draws.

    Returns:
        By the strategies' names, in their order.

    Raises:
        ValueError: two sides of one name, other folds and seeds than the baseline's, other test
            images, or a baseline without a final training. (A strategy that lost all of its own is
            compared in its failures only.)
    """
    sides = [baseline, *strategies]
    names = [side.name for side in sides]
    if len(set(names)) != len(names) or not strategies:
        raise ValueError(f"need one baseline and strategies, each with a name of its own: {names}")
    if not baseline.trainings:
        raise ValueError(f"{baseline.name} has no final training to compare with")
    for side in strategies:
        if set(side.places) != set(baseline.places):
            raise ValueError(
                f"{side.name} has folds and seeds {sorted(side.places)}, "
                f"{baseline.name} {sorted(baseline.places)}"
            )
    tests = _tests(sides)
    sources = {part: independent_sources(table) for part, table in tests.items()}
    quantities = {side.name: _quantities(side, tests, replicates, seed) for side in sides}
    pairs = {
        side.name: _pair(baseline, side, quantities[baseline.name], quantities[side.name], sources)
        for side in strategies
    }
    measured = {
        name: {outcome: OUTCOMES[outcome].measure(paired) for outcome in OUTCOMES}
        for name, paired in pairs.items()
    }
    differences = _corrected(measured, level)
    return {
        side.name: Comparison(
            strategy=side.name,
            baseline=baseline.name,
            trainings=len(pairs[side.name].folds),
            independent=pairs[side.name].independent,
            sources=sources,
            lost=len(side.lost),
            baseline_lost=len(baseline.lost),
            trials=side.trials,
            differences=differences[side.name],
        )
        for side in strategies
    }


def comparison_table(comparisons: dict[str, Comparison]) -> pd.DataFrame:
    """A row a strategy: counts, then each outcome's difference, interval and corrected p-value.

    Columns of an outcome are its name, and the same with `_low`, `_high` and `_p` behind it.
    """
    rows = []
    for c in comparisons.values():
        row: dict[str, str | float] = {
            "strategy": c.strategy, "baseline": c.baseline, "trainings": c.trainings,
            "independent": c.independent, "sources": min(c.sources.values()), "lost": c.lost,
            "baseline_lost": c.baseline_lost, "trials": c.trials,
        }  # fmt: skip
        for name, d in c.differences.items():
            row |= {name: d.value, f"{name}_low": d.low, f"{name}_high": d.high,
                    f"{name}_p": d.p_adjusted}  # fmt: skip
        rows.append(row)
    return pd.DataFrame(rows)


def outcome_table(comparisons: dict[str, Comparison]) -> pd.DataFrame:
    """A row a strategy and outcome, with everything in `Difference`."""
    rows = [
        {"strategy": c.strategy, "outcome": name, **vars(difference)}
        for c in comparisons.values()
        for name, difference in c.differences.items()
    ]
    return pd.DataFrame(rows)


def _tests(sides: Sequence[Side]) -> dict[str, pd.DataFrame]:
    """Each part's images by path, the same for all trainings of all sides."""
    tests: dict[str, pd.DataFrame] = {}
    for side in sides:
        for training in side.trainings:
            for part in PARTS:
                table = _sorted(training, part)
                first = tests.setdefault(part, table)
                columns = ["path", "label", "source_id"]
                if not first[columns].equals(table[columns]):
                    raise ValueError(
                        f"{side.name}, fold and seed {training.place}: its images {PARTS[part]} "
                        "are not the others'"
                    )
    return tests


def _sorted(training: FinalFit, part: str) -> pd.DataFrame:
    table: pd.DataFrame = getattr(training, part).sort_values("path", ignore_index=True)
    return table


def _quantities(
    side: Side, tests: dict[str, pd.DataFrame], replicates: int, seed: int
) -> dict[Place, dict[str, FloatArray]]:
    """Of each training: its quantities as measured, then under each draw of photographs."""
    groups = {part: group_codes(table) for part, table in tests.items()}
    return {
        training.place: {name: np.array([get(training)]) for name, get in _SCALARS.items()}
        | {
            f"{metric}_{part}": values
            for part in PARTS
            for metric, values in _drawn(training, part, groups[part], replicates, seed).items()
        }
        for training in side.trainings
    }


def _drawn(
    training: FinalFit, part: str, groups: npt.NDArray[np.int64], replicates: int, seed: int
) -> dict[str, FloatArray]:
    table = _sorted(training, part)
    weightings = list(
        chain([np.ones((1, len(table)))], bootstrap_weights(groups, replicates, seed))
    )

    def drawn(logits: str, names: Iterable[str]) -> dict[str, FloatArray]:
        chunks = [
            weighted_metrics(table["label"], table[logits], training.threshold, weights)
            for weights in weightings
        ]
        return {name: np.concatenate([chunk[name] for chunk in chunks]) for name in names}

    raw = drawn("raw_logit", _RAW_METRICS)
    return drawn("logit", _METRICS) | {f"raw_{name}": values for name, values in raw.items()}


def _pair(
    baseline: Side,
    strategy: Side,
    baseline_quantities: dict[Place, dict[str, FloatArray]],
    strategy_quantities: dict[Place, dict[str, FloatArray]],
    sources: dict[str, int],
) -> _Pairs:
    common = sorted(baseline_quantities.keys() & strategy_quantities.keys())

    def stacked(quantities: dict[Place, dict[str, FloatArray]]) -> dict[str, FloatArray]:
        names = quantities[common[0]] if common else ()
        return {name: np.stack([quantities[place][name] for place in common]) for name in names}

    return _Pairs(
        np.array([fold for fold, _ in common], dtype=np.int64),
        stacked(baseline_quantities),
        stacked(strategy_quantities),
        sources,
        (
            (strategy.failed_trials, strategy.trials),
            (baseline.failed_trials, baseline.trials),
        ),
    )


def _corrected(
    measured: dict[str, dict[str, _Measured]], level: float
) -> dict[str, dict[str, Difference]]:
    """Differences of all strategies, corrected family by family."""
    result: dict[str, dict[str, Difference]] = {name: {} for name in measured}
    families: dict[str, list[tuple[str, str]]] = {}
    for outcome, about in OUTCOMES.items():
        families.setdefault(about.family, []).extend((name, outcome) for name in measured)
    for members in families.values():
        found = [measured[name][outcome] for name, outcome in members]
        p = np.array([one.estimate.p_value() for one in found])
        for (name, outcome), one, alone, adjusted in zip(members, found, p, holm(p), strict=True):
            result[name][outcome] = _difference(
                one, OUTCOMES[outcome].is_ratio, level, float(alone), float(adjusted), len(members)
            )
    return {name: {o: found[o] for o in OUTCOMES} for name, found in result.items()}


def _difference(
    one: _Measured, is_ratio: bool, level: float, p: float, p_adjusted: float, tests: int
) -> Difference:
    """Everything about one outcome of one strategy, on the scale on which it is shown."""
    shown = np.exp if is_ratio else np.asarray
    alone = shown(one.estimate.interval(level))
    wide = shown(one.estimate.interval(1 - (1 - level) / tests))
    by_source = shown(_percentiles(one.draws, level))
    return Difference(
        baseline=float(one.baseline),
        strategy=float(one.strategy),
        value=float(shown(one.estimate.value)),
        low=float(alone[0]),
        high=float(alone[1]),
        wide_low=float(wide[0]),
        wide_high=float(wide[1]),
        source_low=float(by_source[0]),
        source_high=float(by_source[1]),
        p=p,
        p_adjusted=p_adjusted,
        tests=tests,
    )


def _percentiles(draws: FloatArray, level: float) -> tuple[float, float]:
    draws = draws[~np.isnan(draws)]
    if not len(draws):
        return float("nan"), float("nan")
    tail = 100 * (1 - level) / 2
    low, high = np.percentile(draws, [tail, 100 - tail])
    return float(low), float(high)

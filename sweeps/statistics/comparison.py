"""Compare every strategy with the baseline, outcome by outcome: differences, intervals, p-values.

The comparison is of two training methods, not of two networks, so an interval covers both the
photographs of the test and the final fits (`estimates.Mean`). It holds for this pool of training
data: for other folds and seeds, not for other pools.

Each pair of final fits, one of either side, has a fold of training data and a seed that no other
pair has. Pairs are therefore counted as independent. Those that validate on different folds of one
division train on images that overlap, but whatever an image adds to the result of one of them it
takes from another, which makes the mean over all of them vary less than their spread says. The
variance between the pairs of a strategy is estimated with the help of those of the others
(`sweeps.statistics.pooling`).

One outcome is **primary**, and verdicts rest on it: the change of AUC on unseen generators or, if
the test has none, in-distribution. Its p-values are corrected over the strategies (Holm 1979):
those of any difference, those of equivalence and those of non-superiority, each in a family of
their own. Every other outcome is secondary, and is corrected over the strategies within its own
family. Simultaneous intervals have Bonferroni's level, since there are none of a simple form for
Holm's method: a difference may be significant by Holm although its simultaneous interval just
includes no difference, never the other way round.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import cast

import numpy as np
import numpy.typing as npt
import pandas as pd

from sweeps.statistics.final_fits import FinalFit, FitKey, Side
from sweeps.statistics.pooling import moderated
from sweeps.statistics.power import Components
from synthdetect.datasets.splits import group_codes
from synthdetect.evaluation.estimates import (
    Estimate,
    Mean,
    Shares,
    Spread,
    holm,
    independent_sources,
)
from synthdetect.evaluation.metrics import bootstrap_weights, weighted_metrics
from synthdetect.system.arrays import FloatArray

PARTS = {"seen": "in-distribution", "unseen": "on unseen generators"}
"""Parts of the test split, with their names in reports."""

TABLES = {**PARTS, "control": "of the controls"}
"""The tables of a final fit, with their names in messages."""

_METRICS = {"auc": "AUC", "accuracy": "accuracy", "f1": "F1", "ece": "ECE", "nll": "NLL"}
_RAW_METRICS = {"ece": "ECE before calibration", "nll": "NLL before calibration"}
_CHANGES = {**_METRICS, **{f"raw_{metric}": label for metric, label in _RAW_METRICS.items()}}
_SCALARS: dict[str, Callable[[FinalFit], float]] = {
    "gap": lambda fit: fit.train_auc - fit.val_auc,
    "seconds": lambda fit: fit.seconds_per_image,
    # A fit that needs no more memory than the process already had shows no peak.
    "memory": lambda fit: fit.peak_mib if fit.peak_mib > 0 else np.nan,
}


@dataclass(frozen=True)
class Difference:
    """The difference between a strategy and the baseline in one outcome.

    Attributes:
        baseline: Mean of the baseline's final fits (of a spread, their standard deviation; of
            trials, the share that failed).
        strategy: The same for the strategy.
        value: Strategy minus baseline, or strategy to baseline if the outcome is a ratio.
        low: Lower bound of the confidence interval of this difference alone.
        high: Upper bound of it.
        wide_low: Lower bound of the simultaneous interval, which holds for all differences of the
            family together.
        wide_high: Upper bound of it.
        source_low: Lower bound of the paired percentile bootstrap by photograph, for exactly these
            final fits; nan for an outcome that is not measured on images. It is narrower, since it
            leaves out that other fits would have had other results.
        source_high: Upper bound of it.
        p: P-value of this difference alone.
        p_adjusted: P-value corrected over the family.
        tests: Number of differences in the family.
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
        """Half the width of the simultaneous interval: smaller changes would not be detected."""
        return (self.wide_high - self.wide_low) / 2


@dataclass(frozen=True)
class Comparison:
    """The comparison of one strategy with the baseline.

    Attributes:
        strategy: Name of the strategy.
        baseline: Name of the baseline.
        primary: The primary outcome, which the verdict rests on.
        fits: Number of final fits that both sides have, by fold and seed.
        sources: Independent photographs of the test, by part.
        lost: Number of final fits of the strategy that diverged or failed.
        baseline_lost: The same for the baseline.
        trials: Tuning trials of the strategy.
        differences: Differences by outcome, in the order of `OUTCOMES`.
        smallest_effect: Smallest change of AUC that is of interest.
        p_equivalent: P-value of the hypothesis that the primary outcome has changed by at least
            the smallest effect, in either direction (two one-sided tests, Schuirmann 1987),
            corrected over the strategies.
        p_not_better: P-value of the hypothesis that it has grown by at least the smallest effect,
            corrected over the strategies.
        components: What the change of the primary outcome varies by.
    """

    strategy: str
    baseline: str
    primary: str
    fits: int
    sources: dict[str, int]
    lost: int
    baseline_lost: int
    trials: int
    differences: dict[str, Difference]
    smallest_effect: float
    p_equivalent: float
    p_not_better: float
    components: Components


@dataclass(frozen=True)
class _Pairs:
    """The final fits of baseline and strategy, in pairs of the same fold and seed.

    Attributes:
        keys: Fold and seed of each pair.
        baseline: Quantities of the baseline's fits by name, each of shape (pairs, 1 + replicates):
            as measured, then under each draw of photographs. A quantity that is not measured on
            images has shape (pairs, 1).
        strategy: The same for the strategy.
        sources: Photographs by part of the test.
        trials: Failed trials and all trials, of the strategy and of the baseline.
    """

    keys: list[FitKey]
    baseline: dict[str, FloatArray]
    strategy: dict[str, FloatArray]
    sources: dict[str, int]
    trials: tuple[tuple[int, int], tuple[int, int]]

    def measured(self, quantity: str) -> tuple[FloatArray, FloatArray]:
        """A quantity of strategy and baseline as measured, each of shape (pairs,)."""
        return self.strategy[quantity][:, 0], self.baseline[quantity][:, 0]


@dataclass(frozen=True)
class _Measured:
    """An outcome of one strategy, not yet corrected for the number of strategies."""

    strategy: float
    baseline: float
    estimate: Estimate
    draws: FloatArray


_NO_DRAWS: FloatArray = np.empty(0)
_UNMEASURED = _Measured(np.nan, np.nan, Mean(np.nan, ()), _NO_DRAWS)


@dataclass(frozen=True)
class Outcome:
    """A quantity in which a strategy can differ from the baseline.

    Attributes:
        label: Name in reports.
        family: Outcomes of one family have their p-values corrected together.
        is_ratio: Whether the difference is a ratio (estimated by its logarithm) or a change.
        measure: Measures the outcome of one strategy.
        pooled: Quantity whose change between pairs has its variance estimated with the help of all
            strategies: that of an outcome that is measured on the test's images. Costs and gaps
            vary too differently; they have no such quantity.
    """

    label: str
    family: str
    is_ratio: bool
    measure: Callable[[_Pairs], _Measured]
    pooled: str = ""


def _change(quantity: str, part: str | None, *, log: bool = False) -> Callable[[_Pairs], _Measured]:
    def measure(pairs: _Pairs) -> _Measured:
        if not pairs.keys:
            return _UNMEASURED
        strategy, baseline = pairs.strategy[quantity], pairs.baseline[quantity]
        changes = np.log(strategy / baseline) if log else strategy - baseline
        each_counts = range(len(changes))
        estimate = Mean.of(changes, each_counts, pairs.sources[part] if part else None)
        draws = changes[:, 1:].mean(axis=0)
        return _Measured(strategy[:, 0].mean(), baseline[:, 0].mean(), estimate, draws)

    return measure


def _spread(quantity: str) -> Callable[[_Pairs], _Measured]:
    def measure(pairs: _Pairs) -> _Measured:
        if not pairs.keys:
            return _UNMEASURED
        units = pairs.measured(quantity)
        strategy, baseline = (u.std(ddof=1) if len(u) > 1 else np.nan for u in units)
        return _Measured(strategy, baseline, Spread.of(*units), _NO_DRAWS)

    return measure


def _failures(pairs: _Pairs) -> _Measured:
    strategy, baseline = (failed / count if count else np.nan for failed, count in pairs.trials)
    return _Measured(strategy, baseline, Shares(*pairs.trials), _NO_DRAWS)


OUTCOMES: dict[str, Outcome] = {
    **{
        f"{metric}_{part}": Outcome(
            f"{label} {where}",
            f"{metric}_{part}",
            False,
            _change(f"{metric}_{part}", part),
            pooled=f"{metric}_{part}",
        )
        for metric, label in _CHANGES.items()
        for part, where in PARTS.items()
    },
    "auc_control": Outcome(
        "AUC of the controls",
        "auc_control",
        False,
        _change("auc_control", "control"),
        pooled="auc_control",
    ),
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
"""Outcomes by name, in the order of reports."""


def compare(
    baseline: Side,
    strategies: Sequence[Side],
    *,
    level: float = 0.95,
    smallest_effect: float = 0.02,
    replicates: int = 1000,
    seed: int = 0,
) -> dict[str, Comparison]:
    """Compare strategies with the baseline, paired by fold and seed, photograph and image.

    A final fit that one side lost is left out on the other side too, and is counted.

    Args:
        baseline: Side that the strategies are compared with.
        strategies: One or more sides. P-values and intervals are corrected for their number.
        level: Level of the intervals; 1 - level is the error rate of the corrected p-values.
        smallest_effect: Smallest change of AUC that is of interest, above 0.
        replicates: Bootstrap replicates of the test photographs.
        seed: Seed of the bootstrap.

    Returns:
        Comparisons by the names of the strategies, in their order.

    Raises:
        ValueError: If two sides have the same name, if a side has other folds and seeds or other
            test images than the baseline, or if the baseline has no final fit. (A strategy that
            lost all final fits is compared only in the share of failed trials.)
    """
    sides = [baseline, *strategies]
    names = [side.name for side in sides]
    if len(set(names)) != len(names) or not strategies:
        raise ValueError(f"need a baseline and strategies, each with a name of its own: {names}")
    if not baseline.fits:
        raise ValueError(f"{baseline.name} has no final fit to compare with")
    for side in strategies:
        if set(side.keys) != set(baseline.keys):
            raise ValueError(
                f"{side.name} has folds and seeds {sorted(side.keys)}, "
                f"{baseline.name} {sorted(baseline.keys)}"
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
    _pool(measured, pairs)
    differences = _corrected(measured, level)
    primary = primary_outcome(tests["unseen"])
    changes = [cast(Mean, measured[side.name][primary].estimate) for side in strategies]
    below = np.array([change.p_below(smallest_effect) for change in changes])
    above = np.array([change.p_above(-smallest_effect) for change in changes])
    equivalent, not_better = holm(np.maximum(below, above)), holm(below)
    return {
        side.name: Comparison(
            strategy=side.name,
            baseline=baseline.name,
            primary=primary,
            fits=len(pairs[side.name].keys),
            sources=sources,
            lost=len(side.lost),
            baseline_lost=len(baseline.lost),
            trials=side.trials,
            differences=differences[side.name],
            smallest_effect=smallest_effect,
            p_equivalent=float(equivalent[i]),
            p_not_better=float(not_better[i]),
            components=_components(changes[i], pairs[side.name], part_of(primary)),
        )
        for i, side in enumerate(strategies)
    }


def comparison_table(comparisons: dict[str, Comparison]) -> pd.DataFrame:
    """Tabulate comparisons, one row per strategy: counts, then every outcome.

    `training_sd` and `photograph_sd` are the fields of `Components`, on which the plan of a later
    sweep can rest. An outcome has four columns: its difference under its own name, and the bounds
    of its interval and its corrected p-value with the suffixes `_low`, `_high` and `_p`.
    """
    rows = []
    for c in comparisons.values():
        row: dict[str, str | float] = {
            "strategy": c.strategy, "baseline": c.baseline, "primary": c.primary,
            "trainings": c.fits, "sources": c.sources[part_of(c.primary)], "lost": c.lost,
            "baseline_lost": c.baseline_lost, "trials": c.trials,
            "equivalent_p": c.p_equivalent, "not_better_p": c.p_not_better,
            "training_sd": c.components.training, "photograph_sd": c.components.photographs,
        }  # fmt: skip
        for name, d in c.differences.items():
            row |= {name: d.value, f"{name}_low": d.low, f"{name}_high": d.high,
                    f"{name}_p": d.p_adjusted}  # fmt: skip
        rows.append(row)
    return pd.DataFrame(rows)


def outcome_table(comparisons: dict[str, Comparison]) -> pd.DataFrame:
    """Tabulate comparisons, one row per strategy and outcome, with all fields of `Difference`."""
    rows = [
        {"strategy": c.strategy, "outcome": name, **vars(difference)}
        for c in comparisons.values()
        for name, difference in c.differences.items()
    ]
    return pd.DataFrame(rows)


def _tests(sides: Sequence[Side]) -> dict[str, pd.DataFrame]:
    """The images of each part of the test, by path; they are the same for all final fits."""
    tests: dict[str, pd.DataFrame] = {}
    for side in sides:
        for fit in side.fits:
            for part in TABLES:
                table = _sorted(fit, part)
                first = tests.setdefault(part, table)
                columns = ["path", "label", "source_id"]
                if not first[columns].equals(table[columns]):
                    raise ValueError(
                        f"{side.name}, fold and seed {fit.key}: its images {TABLES[part]} differ "
                        "from those of the other final fits"
                    )
    return tests


def _sorted(fit: FinalFit, part: str) -> pd.DataFrame:
    table: pd.DataFrame = getattr(fit, part).sort_values("path", ignore_index=True)
    return table


def primary_outcome(unseen: pd.DataFrame) -> str:
    """Return the primary outcome of a comparison.

    Args:
        unseen: The test's real images and the images of generators that were not in training, with
            the column `label`.
    """
    return "auc_unseen" if unseen["label"].nunique() == 2 else "auc_seen"


def part_of(primary: str) -> str:
    """Return the part of the test on which a primary outcome is measured."""
    return primary.removeprefix("auc_")


def _pool(measured: dict[str, dict[str, _Measured]], pairs: dict[str, _Pairs]) -> None:
    """Estimate variances between pairs with the help of all strategies, in place."""
    with_fits = {name: paired for name, paired in pairs.items() if paired.keys}
    keys = sorted({key for paired in with_fits.values() for key in paired.keys})
    for outcome, properties in OUTCOMES.items():
        if not properties.pooled or not with_fits:
            continue
        changes = np.full((len(with_fits), len(keys)), np.nan)
        for row, paired in zip(changes, with_fits.values(), strict=True):
            strategy, baseline = paired.measured(properties.pooled)
            row[[keys.index(key) for key in paired.keys]] = strategy - baseline
        for name, variance, freedom in zip(with_fits, *moderated(changes), strict=True):
            one = measured[name][outcome]
            mean = cast(Mean, one.estimate)
            parts = ((float(variance) / len(pairs[name].keys), float(freedom)), *mean.parts[1:])
            measured[name][outcome] = replace(one, estimate=Mean(mean.value, parts))


def _components(change: Mean, pairs: _Pairs, part: str) -> Components:
    if not change.parts:
        return Components(np.nan, np.nan)
    (trained, _), (drawn, _) = change.parts
    return Components(
        float(np.sqrt(trained * len(pairs.keys))), float(np.sqrt(drawn * pairs.sources[part]))
    )


def _quantities(
    side: Side, tests: dict[str, pd.DataFrame], replicates: int, seed: int
) -> dict[FitKey, dict[str, FloatArray]]:
    """The quantities of each final fit: as measured, then under each draw of photographs."""
    groups = {part: group_codes(table) for part, table in tests.items()}
    return {
        fit.key: {name: np.array([get(fit)]) for name, get in _SCALARS.items()}
        | {
            f"{metric}_{part}": values
            for part in TABLES
            for metric, values in _drawn(fit, part, groups[part], replicates, seed).items()
        }
        for fit in side.fits
    }


def _drawn(
    fit: FinalFit, part: str, groups: npt.NDArray[np.int64], replicates: int, seed: int
) -> dict[str, FloatArray]:
    table = _sorted(fit, part)
    weightings = list(
        chain([np.ones((1, len(table)))], bootstrap_weights(groups, replicates, seed))
    )

    def drawn(logits: str, names: Iterable[str]) -> dict[str, FloatArray]:
        chunks = [
            weighted_metrics(table["label"], table[logits], fit.threshold, weights)
            for weights in weightings
        ]
        return {name: np.concatenate([chunk[name] for chunk in chunks]) for name in names}

    raw = drawn("raw_logit", _RAW_METRICS)
    return drawn("logit", _METRICS) | {f"raw_{name}": values for name, values in raw.items()}


def _pair(
    baseline: Side,
    strategy: Side,
    baseline_quantities: dict[FitKey, dict[str, FloatArray]],
    strategy_quantities: dict[FitKey, dict[str, FloatArray]],
    sources: dict[str, int],
) -> _Pairs:
    common = sorted(baseline_quantities.keys() & strategy_quantities.keys())

    def stacked(quantities: dict[FitKey, dict[str, FloatArray]]) -> dict[str, FloatArray]:
        names = quantities[common[0]] if common else ()
        return {name: np.stack([quantities[key][name] for key in common]) for name in names}

    return _Pairs(
        common,
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
    """The differences of all strategies, corrected within each family."""
    result: dict[str, dict[str, Difference]] = {name: {} for name in measured}
    families: dict[str, list[tuple[str, str]]] = {}
    for outcome, properties in OUTCOMES.items():
        families.setdefault(properties.family, []).extend((name, outcome) for name in measured)
    for members in families.values():
        found = [measured[name][outcome] for name, outcome in members]
        p = np.array([one.estimate.p_value() for one in found])
        for (name, outcome), one, alone, adjusted in zip(members, found, p, holm(p), strict=True):
            result[name][outcome] = _difference(
                one, OUTCOMES[outcome].is_ratio, level, float(alone), float(adjusted), len(members)
            )
    return {name: {o: found[o] for o in OUTCOMES} for name, found in result.items()}


def _difference(
    measured: _Measured, is_ratio: bool, level: float, p: float, p_adjusted: float, tests: int
) -> Difference:
    """The difference on its own scale: a ratio is estimated by its logarithm."""
    to_scale = np.exp if is_ratio else np.asarray
    alone = to_scale(measured.estimate.interval(level))
    wide = to_scale(measured.estimate.interval(1 - (1 - level) / tests))
    by_source = to_scale(_percentiles(measured.draws, level))
    return Difference(
        baseline=float(measured.baseline),
        strategy=float(measured.strategy),
        value=float(to_scale(measured.estimate.value)),
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

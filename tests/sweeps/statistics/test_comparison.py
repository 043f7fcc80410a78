"""Differences in cases computed by hand, and pairs of fits whatever their order."""

import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from sweeps.statistics.comparison import (
    OUTCOMES,
    Comparison,
    compare,
    comparison_table,
    outcome_table,
)
from sweeps.statistics.final_fits import FinalFit, Side
from sweeps.statistics.pooling import moderated
from synthdetect.evaluation.metrics import bootstrap_weights, metrics
from tests.sweeps.conftest import alter, final_fit, simulated_sides

SMALL = {"sources": 15, "keys": [(0, 1), (1, 2), (2, 3)]}


def quick(sides: list[Side], **kwargs: float) -> dict[str, Comparison]:
    return compare(sides[0], sides[1:], replicates=100, **kwargs)  # type: ignore[arg-type]


def test_values_are_means_of_the_final_fits_differences() -> None:
    sides = simulated_sides({"a": 0.5}, **SMALL)  # type: ignore[arg-type]
    found = quick(sides)["a"].differences
    for metric in ("auc", "accuracy", "f1", "ece", "nll"):
        for part in ("seen", "unseen"):
            means = [
                np.mean(
                    [
                        metrics(table["label"], table["logit"], fit.threshold)[metric]
                        for fit in side.fits
                        for table in [getattr(fit, part)]
                    ]
                )
                for side in sides
            ]
            difference = found[f"{metric}_{part}"]
            assert (difference.baseline, difference.strategy) == pytest.approx(tuple(means))
            assert difference.value == pytest.approx(means[1] - means[0])
    assert list(found) == list(OUTCOMES)


def test_each_final_fit_has_its_own_threshold() -> None:
    sides = simulated_sides({"a": 0.0}, **SMALL)  # type: ignore[arg-type]
    moved = alter(sides[1], lambda fit: replace(fit, threshold=0.0))
    found = quick([sides[0], moved])["a"].differences
    assert found["accuracy_seen"].strategy == 0.5  # all images are called synthetic
    assert found["auc_seen"].value == quick(sides)["a"].differences["auc_seen"].value


def test_the_interval_by_photograph_is_the_paired_percentile_bootstrap() -> None:
    sides = simulated_sides({"a": 0.5}, sources=15, keys=[(0, 1), (0, 2)])
    found = compare(sides[0], sides[1:], replicates=60, seed=3)["a"].differences["nll_seen"]
    tables = [[fit.seen.sort_values("path") for fit in side.fits] for side in sides]
    weights = np.concatenate(list(bootstrap_weights(tables[0][0]["source_id"], 60, 3)))
    draws = []
    for weight in weights:
        images = np.repeat(np.arange(len(weight)), weight.astype(int))
        nll = [
            np.mean([
                metrics(t["label"].to_numpy()[images], t["logit"].to_numpy()[images], 0.5)["nll"]
                for t in side
            ])
            for side in tables
        ]  # fmt: skip
        draws.append(nll[1] - nll[0])
    expected = np.percentile(draws, [2.5, 97.5])
    assert [found.source_low, found.source_high] == pytest.approx(expected)


def test_ratios_are_geometric_means_and_gaps_are_train_minus_validation() -> None:
    sides = simulated_sides({"a": 0.0}, **SMALL)  # type: ignore[arg-type]
    factors = (2.0, 2.0, 8.0)
    changed = replace(
        sides[1],
        fits=tuple(
            replace(
                fit,
                seconds_per_image=baseline_fit.seconds_per_image * factor,
                peak_mib=baseline_fit.peak_mib * factor,
                train_auc=0.99,
                val_auc=0.80,
            )
            for fit, baseline_fit, factor in zip(sides[1].fits, sides[0].fits, factors, strict=True)
        ),
    )
    found = quick([sides[0], changed])["a"].differences
    for name in ("seconds", "memory"):
        assert found[name].value == pytest.approx(32 ** (1 / 3))
        assert found[name].low < found[name].value < found[name].high
    assert found["gap"].strategy == pytest.approx(0.19)
    assert math.isnan(found["gap"].source_low)  # not measured on the test's photographs


def test_the_order_of_images_final_fits_and_strategies_does_not_matter() -> None:
    sides = simulated_sides({"a": 0.5, "b": 0.0, "c": -0.3}, **SMALL)  # type: ignore[arg-type]
    rng = np.random.default_rng(0)
    shuffled = [
        alter(
            replace(side, fits=side.fits[::-1]),
            lambda fit: replace(
                fit,
                seen=fit.seen.sample(frac=1, random_state=rng.integers(99)),
                unseen=fit.unseen.sample(frac=1, random_state=rng.integers(99)),
                control=fit.control.sample(frac=1, random_state=rng.integers(99)),
            ),
        )
        for side in sides
    ]
    first, second = quick(sides), quick([shuffled[0], *shuffled[:0:-1]])
    assert list(second) == ["c", "b", "a"]
    one, two = (outcome_table(c).set_index(["strategy", "outcome"]) for c in (first, second))
    pd.testing.assert_frame_equal(one.sort_index(), two.sort_index(), rtol=1e-9)


def test_a_bias_against_controls_is_measured_and_is_no_verdict() -> None:
    sides = simulated_sides({"a": 0.0}, **SMALL)  # type: ignore[arg-type]

    def unbiased(fit: FinalFit) -> FinalFit:
        control = fit.control
        return replace(fit, control=control.assign(logit=control["logit"] - control["label"]))

    comparison = quick([sides[0], alter(replace(sides[0], name="a"), unbiased)])["a"]
    found = comparison.differences["auc_control"]
    assert found.strategy == pytest.approx(0.5)
    assert found.baseline > 0.6
    assert found.value == pytest.approx(0.5 - found.baseline)
    assert found.wide_low < found.value < found.wide_high < 0
    assert comparison.differences["auc_unseen"].value == 0


def test_without_controls_their_outcome_is_undefined() -> None:
    sides = simulated_sides({"a": 0.3}, **SMALL)  # type: ignore[arg-type]
    without = [
        alter(s, lambda fit: replace(fit, control=fit.control[fit.control["label"] == 0]))
        for s in sides
    ]
    comparison = quick(without)["a"]
    assert comparison.sources["control"] == 0
    assert math.isnan(comparison.differences["auc_control"].value)
    assert comparison.differences["auc_unseen"].value > 0


def test_an_identical_strategy_has_no_difference() -> None:
    (baseline,) = simulated_sides({}, **SMALL)[:1]  # type: ignore[arg-type]
    found = quick([baseline, replace(baseline, name="a")])["a"].differences
    for name, difference in found.items():
        assert difference.value == (1.0 if OUTCOMES[name].is_ratio else 0.0), name
        assert difference.p_adjusted == 1.0


def test_p_values_are_corrected_within_a_family_for_all_strategies() -> None:
    sides = simulated_sides({"a": 0.9, "b": 0.0}, **SMALL)  # type: ignore[arg-type]
    alone, both = quick(sides[:2])["a"].differences, quick(sides)["a"].differences
    for name, difference in both.items():
        assert alone[name].tests == (2 if OUTCOMES[name].family == "spread" else 1)
        assert difference.tests == 2 * alone[name].tests
        assert difference.value == pytest.approx(alone[name].value, nan_ok=True)
        if not OUTCOMES[name].pooled:
            assert (difference.p, difference.low) == pytest.approx(
                (alone[name].p, alone[name].low), nan_ok=True
            )
        if difference.tests > 1 and not math.isnan(difference.low):
            assert difference.wide_low <= difference.low
            assert difference.wide_high >= difference.high
    wide = quick(sides, level=1 - 0.05 / 2)["a"].differences["auc_seen"]
    assert (wide.low, wide.high) == pytest.approx(
        (both["auc_seen"].wide_low, both["auc_seen"].wide_high)
    )


def test_final_fits_that_one_side_lost_are_left_out_on_both() -> None:
    keys = [(0, 1), (1, 2), (2, 3), (3, 4)]
    baseline, strategy = simulated_sides({"a": 0.5}, keys=keys, sources=15)
    without = [replace(side, fits=side.fits[:3]) for side in (baseline, strategy)]
    lost = replace(strategy, fits=strategy.fits[:3], lost=((3, 4),))
    one, two = quick([baseline, lost]), quick(without)
    assert (one["a"].lost, one["a"].fits) == (1, 3)
    assert (two["a"].lost, two["a"].fits) == (0, 3)
    assert outcome_table(one).equals(outcome_table(two))


def test_a_strategy_without_final_fits_is_compared_in_failures_only() -> None:
    baseline, strategy = simulated_sides({"a": 0.5}, **SMALL)  # type: ignore[arg-type]
    lost = tuple(fit.key for fit in strategy.fits)
    empty = replace(strategy, fits=(), lost=lost, failed_trials=9)
    found = quick([baseline, empty])["a"]
    assert (found.fits, found.lost) == (0, 3)
    assert math.isnan(found.p_equivalent)
    assert math.isnan(found.differences["auc_seen"].value)
    assert found.differences["failed_trials"].value == 0.9
    assert found.differences["failed_trials"].p_adjusted < 0.001


def test_tables_are_flat_with_one_row_per_strategy() -> None:
    comparisons = quick(simulated_sides({"a": 0.5, "b": 0.0}, **SMALL))  # type: ignore[arg-type]
    table = comparison_table(comparisons)
    assert table["strategy"].tolist() == ["a", "b"]
    assert table["sources"].tolist() == [15, 15]
    assert {"auc_unseen", "auc_unseen_low", "auc_unseen_high", "auc_unseen_p"} <= set(table)
    assert table.drop(columns=["strategy", "baseline", "primary"]).map(np.isreal).all(axis=None)
    assert len(outcome_table(comparisons)) == 2 * len(OUTCOMES)


def test_every_pair_of_final_fits_counts_also_where_two_have_the_same_fold() -> None:
    """By hand: Student's t on the five pairs, if photographs did not vary."""
    keys = [(0, 1), (1, 2), (0, 3), (1, 4), (0, 5)]
    sides = simulated_sides({"a": 0.3}, keys=keys, sources=15)
    changes = [
        strategy.train_auc - strategy.val_auc - (baseline.train_auc - baseline.val_auc)
        for baseline, strategy in zip(sides[0].fits, sides[1].fits, strict=True)
    ]
    found = quick(sides)["a"].differences["gap"]
    assert found.p == pytest.approx(stats.ttest_1samp(changes, 0).pvalue)


def test_the_variance_of_a_strategy_is_estimated_with_those_of_the_others() -> None:
    sides = simulated_sides({"a": 0.0, "b": 0.0, "c": 0.0}, **SMALL)  # type: ignore[arg-type]
    changes = np.array([
        [_auc(strategy) - _auc(baseline)
         for baseline, strategy in zip(sides[0].fits, side.fits, strict=True)]
        for side in sides[1:]
    ])  # fmt: skip
    variances, _ = moderated(changes)
    for variance, comparison in zip(variances, quick(sides).values(), strict=True):
        assert comparison.components.training == pytest.approx(math.sqrt(variance))


def _auc(fit: FinalFit) -> float:
    return metrics(fit.unseen["label"], fit.unseen["logit"], 0.5)["auc"]


def test_the_primary_outcome_is_on_unseen_generators_if_there_are_any() -> None:
    sides = simulated_sides({"a": 0.0}, **SMALL)  # type: ignore[arg-type]
    assert quick(sides)["a"].primary == "auc_unseen"
    without = [
        alter(side, lambda fit: replace(fit, unseen=fit.unseen[fit.unseen["label"] == 0]))
        for side in sides
    ]
    found = quick(without)["a"]
    assert found.primary == "auc_seen"
    assert not math.isnan(found.p_equivalent)


# --- refusals


def test_other_folds_and_seeds_are_refused() -> None:
    baseline, strategy = simulated_sides({"a": 0.0}, **SMALL)  # type: ignore[arg-type]
    fewer = replace(strategy, fits=strategy.fits[:2])
    with pytest.raises(ValueError, match="a has folds and seeds"):
        quick([baseline, fewer])


@pytest.mark.parametrize("column", ["path", "source_id"])
def test_other_images_are_refused(column: str) -> None:
    baseline, strategy = simulated_sides({"a": 0.0}, **SMALL)  # type: ignore[arg-type]
    first, *others = strategy.fits
    for unseen in (
        first.unseen.iloc[1:],
        first.unseen.assign(**{column: first.seen[column] + "x"}),
    ):
        cut = replace(strategy, fits=(replace(first, unseen=unseen), *others))
        with pytest.raises(ValueError, match=r"a, fold and seed \(0, 1\).*on unseen generators"):
            quick([baseline, cut])


def test_repeated_names_and_missing_strategies_are_refused() -> None:
    baseline, strategy = simulated_sides({"a": 0.0}, **SMALL)  # type: ignore[arg-type]
    for strategies in ([strategy, strategy], [baseline], []):
        with pytest.raises(ValueError, match="a name of its own"):
            compare(baseline, strategies)


def test_a_contradictory_side_is_refused() -> None:
    one = final_fit(np.zeros((3, 2, 1)), (0, 1))
    with pytest.raises(ValueError, match="occurs twice"):
        Side("a", (one, one))
    with pytest.raises(ValueError, match="occurs twice"):
        Side("a", (one,), lost=((0, 1),))
    with pytest.raises(ValueError, match="3 of 2 trials failed"):
        Side("a", (one,), trials=2, failed_trials=3)


def test_a_baseline_without_final_fits_is_refused() -> None:
    baseline, strategy = simulated_sides({"a": 0.0}, **SMALL)  # type: ignore[arg-type]
    empty = replace(baseline, fits=(), lost=tuple(fit.key for fit in baseline.fits))
    with pytest.raises(ValueError, match="baseline has no final fit"):
        quick([empty, strategy])

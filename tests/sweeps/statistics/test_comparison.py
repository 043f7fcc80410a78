"""Differences against hand-made cases, and pairing that neither order nor names can break."""

import math
from dataclasses import replace

import numpy as np
import pytest

from sweeps.statistics.comparison import (
    OUTCOMES,
    Comparison,
    compare,
    comparison_table,
    outcome_table,
)
from sweeps.statistics.final_fits import Side
from synthdetect.evaluation.metrics import bootstrap_weights, metrics
from tests.sweeps.conftest import made_up, training

SMALL = {"sources": 15, "places": [(0, 1), (1, 2), (2, 3)]}


def quick(sides: list[Side], **kwargs: float) -> dict[str, Comparison]:
    return compare(sides[0], sides[1:], replicates=100, **kwargs)  # type: ignore[arg-type]


def test_values_are_means_of_the_trainings_differences() -> None:
    sides = made_up({"a": 0.5}, **SMALL)  # type: ignore[arg-type]
    found = quick(sides)["a"].differences
    for metric in ("auc", "accuracy", "f1", "ece", "nll"):
        for part in ("seen", "unseen"):
            means = [
                np.mean(
                    [
                        metrics(table["label"], table["logit"], t.threshold)[metric]
                        for t in side.trainings
                        for table in [getattr(t, part)]
                    ]
                )
                for side in sides
            ]
            difference = found[f"{metric}_{part}"]
            assert (difference.baseline, difference.strategy) == pytest.approx(tuple(means))
            assert difference.value == pytest.approx(means[1] - means[0])
    assert list(found) == list(OUTCOMES)


def test_each_training_has_its_own_threshold() -> None:
    sides = made_up({"a": 0.0}, **SMALL)  # type: ignore[arg-type]
    moved = replace(
        sides[1], trainings=tuple(replace(t, threshold=0.0) for t in sides[1].trainings)
    )
    found = quick([sides[0], moved])["a"].differences
    assert found["accuracy_seen"].strategy == 0.5  # everything is called synthetic
    assert found["auc_seen"].value == quick(sides)["a"].differences["auc_seen"].value


def test_the_interval_by_photograph_is_the_paired_percentile_bootstrap() -> None:
    sides = made_up({"a": 0.5}, sources=15, places=[(0, 1), (0, 2)])
    found = compare(sides[0], sides[1:], replicates=60, seed=3)["a"].differences["nll_seen"]
    tables = [[t.seen.sort_values("path") for t in side.trainings] for side in sides]
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
    sides = made_up({"a": 0.0}, **SMALL)  # type: ignore[arg-type]
    factors = (2.0, 2.0, 8.0)
    changed = replace(
        sides[1],
        trainings=tuple(
            replace(
                here,
                seconds_per_image=there.seconds_per_image * factor,
                peak_mib=there.peak_mib * factor,
                train_auc=0.99,
                val_auc=0.80,
            )
            for here, there, factor in zip(
                sides[1].trainings, sides[0].trainings, factors, strict=True
            )
        ),
    )
    found = quick([sides[0], changed])["a"].differences
    for name in ("seconds", "memory"):
        assert found[name].value == pytest.approx(32 ** (1 / 3))
        assert found[name].low < found[name].value < found[name].high
    assert found["gap"].strategy == pytest.approx(0.19)
    assert math.isnan(found["gap"].source_low)  # not measured on the test's photographs


def test_neither_the_order_of_images_trainings_nor_strategies_matters() -> None:
    sides = made_up({"a": 0.5, "b": 0.0, "c": -0.3}, **SMALL)  # type: ignore[arg-type]
    rng = np.random.default_rng(0)
    shuffled = [
        replace(
            side,
            trainings=tuple(
                replace(
                    t,
                    seen=t.seen.sample(frac=1, random_state=rng.integers(99)),
                    unseen=t.unseen.sample(frac=1, random_state=rng.integers(99)),
                )
                for t in side.trainings[::-1]
            ),
        )
        for side in sides
    ]
    first, second = quick(sides), quick([shuffled[0], *shuffled[:0:-1]])
    assert list(second) == ["c", "b", "a"]
    one, two = (outcome_table(c).set_index(["strategy", "outcome"]) for c in (first, second))
    assert one.sort_index().equals(two.sort_index())


def test_a_strategy_equal_to_the_last_digit_differs_in_nothing() -> None:
    (baseline,) = made_up({}, **SMALL)[:1]  # type: ignore[arg-type]
    found = quick([baseline, replace(baseline, name="a")])["a"].differences
    for name, difference in found.items():
        assert difference.value == (1.0 if OUTCOMES[name].is_ratio else 0.0), name
        assert difference.p_adjusted == 1.0


def test_p_values_are_corrected_within_a_family_for_all_strategies() -> None:
    sides = made_up({"a": 0.9, "b": 0.0}, **SMALL)  # type: ignore[arg-type]
    alone, both = quick(sides[:2])["a"].differences, quick(sides)["a"].differences
    assert (alone["auc_seen"].tests, both["auc_seen"].tests) == (2, 4)
    assert (alone["ece_seen"].tests, both["ece_seen"].tests) == (1, 2)
    for name, difference in both.items():
        assert (difference.value, difference.p, difference.low) == pytest.approx(
            (alone[name].value, alone[name].p, alone[name].low), nan_ok=True
        )
        if difference.tests > 1 and not math.isnan(difference.low):
            assert difference.wide_low <= difference.low
            assert difference.wide_high >= difference.high
    wide = quick(sides, level=1 - 0.05 / 4)["a"].differences["auc_seen"]
    assert (wide.low, wide.high) == pytest.approx(
        (both["auc_seen"].wide_low, both["auc_seen"].wide_high)
    )


def test_trainings_that_one_side_lost_are_left_out_on_both() -> None:
    baseline, strategy = made_up({"a": 0.5}, places=[(0, 1), (1, 2), (2, 3), (3, 4)], sources=15)
    without = [replace(side, trainings=side.trainings[:3]) for side in (baseline, strategy)]
    lost = replace(strategy, trainings=strategy.trainings[:3], lost=((3, 4),))
    one, two = quick([baseline, lost]), quick(without)
    assert (one["a"].lost, one["a"].trainings) == (1, 3)
    assert (two["a"].lost, two["a"].trainings) == (0, 3)
    assert outcome_table(one).equals(outcome_table(two))


def test_a_strategy_of_which_nothing_is_left_has_failures_only() -> None:
    baseline, strategy = made_up({"a": 0.5}, **SMALL)  # type: ignore[arg-type]
    places = tuple(t.place for t in strategy.trainings)
    gone = replace(strategy, trainings=(), lost=places, failed_trials=9)
    found = quick([baseline, gone])["a"]
    assert (found.trainings, found.independent, found.lost) == (0, 0, 3)
    assert math.isnan(found.differences["auc_seen"].value)
    assert found.differences["failed_trials"].value == 0.9
    assert found.differences["failed_trials"].p_adjusted < 0.001


def test_tables_are_flat_with_a_row_a_strategy() -> None:
    comparisons = quick(made_up({"a": 0.5, "b": 0.0}, **SMALL))  # type: ignore[arg-type]
    table = comparison_table(comparisons)
    assert table["strategy"].tolist() == ["a", "b"]
    assert table["sources"].tolist() == [15, 15]
    assert {"auc_unseen", "auc_unseen_low", "auc_unseen_high", "auc_unseen_p"} <= set(table)
    assert table.drop(columns=["strategy", "baseline"]).map(np.isreal).all(axis=None)
    assert len(outcome_table(comparisons)) == 2 * len(OUTCOMES)


# --- what is refused


def test_other_folds_and_seeds_are_refused() -> None:
    baseline, strategy = made_up({"a": 0.0}, **SMALL)  # type: ignore[arg-type]
    fewer = replace(strategy, trainings=strategy.trainings[:2])
    with pytest.raises(ValueError, match="a has folds and seeds"):
        quick([baseline, fewer])


@pytest.mark.parametrize("column", ["path", "source_id"])
def test_other_images_are_refused(column: str) -> None:
    baseline, strategy = made_up({"a": 0.0}, **SMALL)  # type: ignore[arg-type]
    first, *others = strategy.trainings
    for unseen in (
        first.unseen.iloc[1:],
        first.unseen.assign(**{column: first.seen[column] + "x"}),
    ):
        cut = replace(strategy, trainings=(replace(first, unseen=unseen), *others))
        with pytest.raises(ValueError, match=r"a, fold and seed \(0, 1\).*on unseen generators"):
            quick([baseline, cut])


def test_names_that_occur_twice_and_no_strategies_are_refused() -> None:
    baseline, strategy = made_up({"a": 0.0}, **SMALL)  # type: ignore[arg-type]
    for strategies in ([strategy, strategy], [baseline], []):
        with pytest.raises(ValueError, match="a name of its own"):
            compare(baseline, strategies)


def test_a_side_cannot_contradict_itself() -> None:
    one = training(np.zeros((3, 2, 1)), (0, 1))
    with pytest.raises(ValueError, match="occurs twice"):
        Side("a", (one, one))
    with pytest.raises(ValueError, match="occurs twice"):
        Side("a", (one,), lost=((0, 1),))
    with pytest.raises(ValueError, match="3 of 2 trials failed"):
        Side("a", (one,), trials=2, failed_trials=3)


def test_a_baseline_without_trainings_is_refused() -> None:
    baseline, strategy = made_up({"a": 0.0}, **SMALL)  # type: ignore[arg-type]
    empty = replace(baseline, trainings=(), lost=tuple(t.place for t in baseline.trainings))
    with pytest.raises(ValueError, match="baseline has no final training"):
        quick([empty, strategy])

"""Tests of paired differences: known cases, their agreement with other estimates, and the test."""

import numpy as np
import pandas as pd
import pytest

from synthdetect.evaluation.effects import Cell, Change, effects, replicates
from synthdetect.evaluation.estimates import Mean
from synthdetect.evaluation.metrics import METRICS, metrics
from synthdetect.evaluation.paired import NonInferiority, Paired, paired_auc, paired_metrics


def scored(
    gain: float, *, photographs: int = 40, seed: int = 0, threshold: float = 0.5
) -> pd.DataFrame:
    """Predictions of one real and two synthetic images of each photograph."""
    rng = np.random.default_rng(seed)
    labels = np.tile([0, 1, 1], photographs)
    shared = np.repeat(rng.normal(size=photographs), 3)
    logit = shared + gain * labels + np.random.default_rng(seed + 1).normal(size=len(labels))
    return pd.DataFrame(
        {
            "path": [f"{i}.png" for i in range(len(labels))],
            "label": labels,
            "generator": np.where(labels, "g", ""),
            "source_id": np.repeat([f"p{i}" for i in range(photographs)], 3),
            "logit": logit,
            "probability": 1 / (1 + np.exp(-logit)),
            "predicted": (logit >= np.log(threshold / (1 - threshold))).astype(int),
        }
    )


def test_values_are_those_of_the_tables_and_differences_are_between_them() -> None:
    a, b = scored(1.0, threshold=0.4), scored(2.0, threshold=0.7)
    found = paired_metrics([a, b], seed=1)
    assert set(found) == set(METRICS)
    for table, threshold, side in ((a, 0.4, "reference"), (b, 0.7, "value")):
        for name, value in metrics(table["label"], table["logit"], threshold).items():
            assert getattr(found[name][0], side) == pytest.approx(value, nan_ok=True), name
    auc = found["auc"][0]
    assert auc.difference == pytest.approx(auc.value - auc.reference)
    assert paired_auc([a, b], seed=1)[0] == auc


def test_the_interval_is_that_of_the_regimes_for_one_pair_of_trainings() -> None:
    a, b = scored(1.0), scored(1.5)
    cells = [Cell({"x": n}, 0, t, 0.5) for n, t in (("a", a), ("b", b))]
    measured = replicates(cells, ["auc", "f1"], seed=3)
    table = effects(cells, [Change("x", "x", "a", "b")], measured).set_index("metric")
    found = paired_metrics([a, b], seed=3)
    for name in ("auc", "f1"):
        assert found[name][0].interval() == pytest.approx(tuple(table.loc[name, ["low", "high"]]))


def test_the_same_scores_differ_by_nothing_with_certainty() -> None:
    pair = paired_metrics([scored(1.0), scored(1.0)], seed=0)["auc"][0]
    assert (pair.difference, *pair.interval()) == (0, 0, 0)
    assert NonInferiority.of("auc", pair, 0.0).is_shown


def test_two_detectors_without_a_mistake_are_not_equal_with_certainty() -> None:
    few, many = (
        paired_auc([scored(40, photographs=n), scored(50, photographs=n, seed=2)], seed=0)[0]
        for n in (20, 500)
    )
    low, high = few.interval(0.9)
    assert few.difference == 0
    assert low == pytest.approx(0.05 ** (1 / 20) - 1)  # none of 20 photographs failed
    assert high == -low
    assert not NonInferiority.of("auc", few, 0.01).is_shown
    assert NonInferiority.of("auc", many, 0.01).is_shown


def test_a_single_photograph_gives_no_interval_and_shows_nothing() -> None:
    a, b = scored(1.0, photographs=1), scored(3.0, photographs=1)
    pair = paired_auc([a, b], seed=0)[0]
    assert np.isnan(pair.interval()).all()
    assert not NonInferiority.of("auc", pair, 1.0).is_shown


def test_what_is_shown_depends_on_bound_and_margin() -> None:
    pair = Paired(0.9, 0.88, Mean(-0.02, ((0.01**2, 1000.0),)))
    test = NonInferiority.of("auc", pair, 0.03)
    assert test.bound == pytest.approx(-0.02 - 1.6464 * 0.01, abs=1e-5)  # t with 1000 degrees
    assert (test.low, test.high) == pytest.approx((-0.03962, -0.00038), abs=1e-5)
    assert not test.is_shown  # -0.036 is beyond -0.03
    assert test.is_worse
    assert NonInferiority.of("auc", pair, 0.04).is_shown


def test_a_lower_loss_is_a_gain() -> None:
    pair = Paired(0.5, 0.4, Mean(-0.1, ((0.01**2, 1000.0),)))
    test = NonInferiority.of("nll", pair, 0.0)
    assert test.gain == pytest.approx(0.1)
    assert test.low < test.bound < test.gain < test.high
    assert test.is_shown
    assert not test.is_worse
    assert not NonInferiority.of("auc", pair, 0.0).is_shown

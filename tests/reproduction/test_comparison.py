"""Tests of the comparison of two runs: every differing bit is found and named."""

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from synthdetect.reproduction.comparison import (
    EXACTLY,
    NOT_REPRODUCED,
    RunResults,
    compare_results,
    largest_first,
    summary,
    verdict,
)


def results(**changed: Any) -> RunResults:
    rng = np.random.default_rng(0)
    made = RunResults(
        weights={
            "a.weight": rng.normal(size=(3, 4)).astype(np.float32),
            "a.batches": np.array(7, dtype=np.int64),
        },
        metrics={
            "train/loss": {1: 0.7, 2: 0.6},
            "images_per_second": {1: rng.random()},
            "system/cpu": {0: rng.random()},
            "final/peak_mib": {0: rng.random()},
            "best/epoch": {0: 2.0},
            "decision/threshold": {0: 0.4},
            "test/auc": {0: 0.9},
            "test/nothing": {0: math.nan},
        },
        predictions={
            "predictions/test.csv": pd.DataFrame(
                {"path": ["x", "y", "z"], "raw_logit": [1.0, -2.0, 0.5], "logit": [2.0, -4.0, 1.0]}
            )
        },
    )
    return replace(made, **changed)


def differing(one: RunResults, other: RunResults) -> dict[str, dict[str, Any]]:
    found = largest_first(compare_results(one, other)).to_dict(orient="records")
    return {row["name"]: row for row in found}


def test_what_is_equal_is_reproduced_and_counted() -> None:
    compared = compare_results(results(), results())
    assert verdict(compared, 0) == EXACTLY
    assert summary(compared).to_numpy().tolist() == [
        ["weights", 13, 0, 0.0],
        ["epochs", 2, 0, 0.0],
        ["choices", 2, 0, 0.0],
        ["results", 2, 0, 0.0],
        ["predictions", 6, 0, 0.0],
    ]


def test_speeds_and_what_the_machine_did_are_no_results() -> None:
    names = set(compare_results(results(), results())["name"])
    assert not names & {"images_per_second", "system/cpu", "final/peak_mib"}
    slower = {**results().metrics, "images_per_second": {1: 1e9}}
    assert verdict(compare_results(results(), results(metrics=slower)), 0) == EXACTLY


@pytest.mark.parametrize("bit", range(32))
def test_one_bit_of_one_weight_is_found(bit: int) -> None:
    weights = {name: tensor.copy() for name, tensor in results().weights.items()}
    weights["a.weight"].view(np.uint32)[1, 2] ^= np.uint32(1 << bit)
    compared = compare_results(results(), results(weights=weights))
    assert verdict(compared, 0) == NOT_REPRODUCED
    (row,) = largest_first(compared).to_dict(orient="records")
    assert (row["part"], row["name"], row["at"]) == ("weights", "a.weight", "6")
    assert (row["values"], row["differing"]) == (12, 1)
    expected = abs(float(row["rerun"]) - float(row["recorded"]))
    assert row["greatest"] == (expected if math.isfinite(expected) else math.inf)


def test_the_sign_of_zero_is_a_bit_too() -> None:
    one, other = ({"w": np.array([zero], dtype=np.float32)} for zero in (0.0, -0.0))
    compared = compare_results(results(weights=one), results(weights=other))
    assert verdict(compared, 0) == NOT_REPRODUCED
    assert largest_first(compared)["greatest"].tolist() == [0.0]


def test_the_greatest_difference_is_named_with_its_epoch_or_image() -> None:
    metrics = {**results().metrics, "train/loss": {1: 0.7 + 1e-9, 2: 0.85}}
    table = results().predictions["predictions/test.csv"]
    logits = table.assign(logit=[2.0, -4.5, 1.0])[::-1]  # in another order
    found = differing(
        results(), results(metrics=metrics, predictions={"predictions/test.csv": logits})
    )
    assert list(found) == ["predictions/test.csv logit", "train/loss"]  # the largest first
    logit, loss = found.values()
    assert (logit["at"], logit["recorded"], logit["rerun"]) == ("y", -4.0, -4.5)
    assert (logit["differing"], logit["greatest"]) == (1, 0.5)
    assert (loss["part"], loss["at"], loss["differing"]) == ("epochs", "2", 2)
    assert loss["greatest"] == pytest.approx(0.25)


def test_a_number_against_none_is_infinitely_far() -> None:
    metrics = {**results().metrics, "test/auc": {0: math.nan}}
    found = differing(results(), results(metrics=metrics))
    assert found["test/auc"]["greatest"] == math.inf


def test_weights_are_compared_by_hash_if_one_side_keeps_no_model() -> None:
    known = results()
    hashed = RunResults(digest="abc", metrics=known.metrics, predictions=known.predictions)
    for digest, word in (("abc", EXACTLY), ("abd", NOT_REPRODUCED)):
        rerun = RunResults(known.weights, digest, known.metrics, known.predictions)
        for pair in ((hashed, rerun), (rerun, hashed)):
            assert verdict(compare_results(*pair), 0) == word


def test_metrics_that_only_the_rerun_has_are_not_compared() -> None:
    more = {**results().metrics, "test/new": {0: 1.0}}
    assert verdict(compare_results(results(), results(metrics=more)), 0) == EXACTLY
    assert verdict(compare_results(results(metrics=more), results()), 0) == NOT_REPRODUCED


@pytest.mark.parametrize("turn", [1, -1])
def test_what_only_one_side_has_is_found_on_either(turn: int) -> None:
    metrics = {"train/loss": {1: 0.7}, "test/auc": {0: 0.9}}
    table = results().predictions["predictions/test.csv"]
    less = RunResults(
        {"a.weight": results().weights["a.weight"]},
        metrics=metrics,
        predictions={"predictions/test.csv": table.iloc[:2]},
    )
    compared = compare_results(*(results(), less)[::turn])
    assert verdict(compared, 0) == NOT_REPRODUCED
    rows = largest_first(compared).set_index("name")
    assert set(rows["greatest"]) == {math.inf}
    assert rows.loc["train/loss", ["values", "differing", "at"]].tolist() == [2, 1, "2"]
    assert rows.loc["a.batches", ["values", "differing"]].tolist() == [1, 1]
    assert rows.loc["predictions/test.csv logit", ["differing", "at"]].tolist() == [1, "z"]
    assert ("best/epoch" in rows.index) == (turn == 1)  # a new metric is not compared
    assert "test/auc" not in rows.index


def test_a_tolerance_is_of_results_alone() -> None:
    """The way there may differ, and so may what was chosen on it."""
    changed = {
        "train/loss": {1: 5.0, 2: 0.6},
        "best/epoch": {0: 9.0},
        "decision/threshold": {0: 0.9},
        "test/auc": {0: 0.91},
    }
    metrics = {**results().metrics, **changed}
    weights = {name: tensor + 1 for name, tensor in results().weights.items()}
    compared = compare_results(results(), results(metrics=metrics, weights=weights))
    assert verdict(compared, 0.02) == "reproduced within 0.02"
    assert verdict(compared, 0.005) == NOT_REPRODUCED
    assert verdict(compared, 0) == NOT_REPRODUCED


def test_a_tolerance_needs_results_to_hold_for() -> None:
    one, other = (RunResults(digest=digest, metrics={"val/auc": {1: 0.5}}) for digest in ("a", "b"))
    assert verdict(compare_results(one, other), 0.5) == NOT_REPRODUCED


@pytest.mark.parametrize(("digests", "said"), [(("a", "a"), EXACTLY), (("a", "b"), NOT_REPRODUCED)])
def test_hashes_tell_where_no_model_is_kept(digests: tuple[str, str], said: str) -> None:
    compared = compare_results(*(RunResults(digest=digest) for digest in digests))
    assert verdict(compared, 0) == said
    assert summary(compared)["differing"].tolist() == [int(said != EXACTLY)]


def test_nothing_is_reproduced_where_no_weights_were_compared() -> None:
    metrics = {"val/auc": {1: 0.5}}
    with pytest.raises(ValueError, match="no weights"):
        verdict(compare_results(RunResults(metrics=metrics), RunResults(metrics=metrics)), 0)

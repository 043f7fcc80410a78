"""The answer in words follows from the intervals alone."""

import math

import pandas as pd
import pytest

from synthdetect.evaluation.answer import answer, judged_split, main_results


def overall(auc: float, low: float, high: float) -> pd.DataFrame:
    rows = [("auc", auc, low, high), ("real_accuracy", 0.9, 0.8, 1.0),
            ("fake_accuracy", 0.75, 0.7, 0.8), ("ece", 0.1, 0.05, 0.2)]  # fmt: skip
    return pd.DataFrame(rows, columns=["metric", "value", "low", "high"])


GENERATORS = pd.DataFrame(
    [("old", 9, 0.9, 0.8, 1.0), ("new", 9, 0.55, 0.49, 0.6), ("(worst)", 18, 0.55, 0.5, 0.6)],
    columns=["generator", "images", "auc", "auc_low", "auc_high"],
)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ((0.8, 0.7, 0.9), "It tells synthetic images from real ones on 20 test images"),
        ((0.6, 0.5, 0.7), "It is not shown to be better than chance"),
        ((0.3, 0.2, 0.4), "It is worse than chance"),
        ((0.8, math.nan, math.nan), "It is not shown to be better than chance"),
    ],
)
def test_the_first_sentence_is_what_the_interval_shows(
    values: tuple[float, float, float], said: str
) -> None:
    found = answer("test", overall(*values), pd.DataFrame(), images=20)
    assert found[0].startswith(said)


def test_generators_are_named_by_whether_it_is_shown_for_them_and_whether_they_trained() -> None:
    found = answer("test", overall(0.8, 0.7, 0.9), GENERATORS, trained_on={"old"}, sources=7)
    assert "Shown for old 0.900." in found
    assert "Not shown for new 0.550 (not trained on)." in found
    assert "misses 25% of the synthetic ones" in found[1]
    assert "takes 10% of the real images" in found[1]
    assert "7 photographs" in found[-1]


def test_a_control_that_is_taken_for_synthetic_is_said() -> None:
    misled = answer("test", overall(0.8, 0.7, 0.9), pd.DataFrame(), control=(0.9, 0.8, 1.0))
    assert any("processing, not generation" in text for text in misled)
    fine = answer("test", overall(0.8, 0.7, 0.9), pd.DataFrame(), control=(0.5, 0.4, 0.6))
    assert any("do not mislead it" in text for text in fine)


def test_without_an_auc_there_is_no_answer() -> None:
    assert answer("control", overall(math.nan, math.nan, math.nan), pd.DataFrame()) == []


def test_the_split_that_judges_influenced_no_choice() -> None:
    assert judged_split(["val", "test"]) == "test"
    assert judged_split(["val", "test", "oof"]) == "oof"
    assert judged_split(["train", "val"]) == ""
    assert judged_split(["val", "elsewhere"]) == "elsewhere"
    assert "too good" in answer("val", overall(0.8, 0.7, 0.9), pd.DataFrame())[-1]


def test_the_main_results_are_few() -> None:
    assert main_results(overall(0.8, 0.7, 0.9), GENERATORS) == {
        "auc": 0.8, "auc_low": 0.7, "auc_high": 0.9, "ece": 0.1, "worst_generator_auc": 0.55,
    }  # fmt: skip

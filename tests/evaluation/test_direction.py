"""Scores below chance, in words."""

import numpy as np
import pandas as pd
import pytest

from synthdetect.evaluation.decision import Decision
from synthdetect.evaluation.direction import direction_words
from synthdetect.evaluation.predictions import Evaluation, evaluate, prediction_table


def evaluated(**shifts: float) -> dict[str, Evaluation]:
    """Real images around 0, and those of generators shifted by so many standard deviations."""
    rng, count = np.random.default_rng(0), 150
    names = ["", *shifts]
    rows = pd.DataFrame(
        {
            "path": [f"{n}{i}" for n in names for i in range(count)],
            "label": [int(n != "") for n in names for _ in range(count)],
            "split": "test",
            "generator": np.repeat(names, count),
            "category": "",
            "source_id": "",
        }
    )
    logits = rng.normal(size=len(rows)) + np.repeat([0.0, *shifts.values()], count)
    return evaluate({"test": prediction_table(rows, logits, Decision())}, Decision(), seed=0)


def test_good_scores_and_chance_need_no_words() -> None:
    assert direction_words(evaluated(a=2, b=1)) == []
    assert direction_words(evaluated(a=0, b=0)) == []
    assert direction_words(evaluated(a=2, b=-2)) == []


@pytest.mark.parametrize(
    ("shifts", "words"),
    [
        ({"a": -2.0, "b": -2.0, "c": 1.0}, "2 of 3 generators"),
        ({"a": -3.0}, "the generator"),
    ],
)
def test_inverted_scores_are_called_so(shifts: dict[str, float], words: str) -> None:
    (found,) = direction_words(evaluated(**shifts))
    assert "the scores are inverted" in found
    assert words in found
    assert "label 1 is synthetic" in found


def test_scores_a_little_below_chance_are_worse_than_chance() -> None:
    (found,) = direction_words(evaluated(a=-0.4, b=-0.4))
    assert "worse than chance" in found
    assert "inverted" not in found

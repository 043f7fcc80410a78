"""Selection of the worst mistakes and of a balanced sample of correct predictions."""

import numpy as np
import pandas as pd
import pytest
from scipy.special import logit

from synthdetect.evaluation.decision import Decision
from synthdetect.evaluation.examples import sample_hits, worst_mistakes
from synthdetect.evaluation.predictions import prediction_table


def table_of(
    labels: list[int], logits: list[float], threshold: float, generators: list[str] | None = None
) -> pd.DataFrame:
    rows = pd.DataFrame({"label": np.array(labels, dtype="int8")})
    rows["generator"] = generators or ["sd" if label else "" for label in labels]
    return prediction_table(rows, np.array(logits), Decision(threshold=threshold))


def test_distance_is_measured_from_the_threshold_not_from_one_half() -> None:
    threshold = 0.9  # log-odds 2.2
    table = table_of([0, 0, 1, 1, 1, 0], [2.5, 1.0, 1.5, 0.5, 3.0, 5.0], threshold)
    assert worst_mistakes(table, threshold, 9).tolist() == [5, 3, 2, 0]
    assert worst_mistakes(table, threshold, 2).tolist() == [5, 3]


def test_mistakes_are_sorted_by_their_distance() -> None:
    rng = np.random.default_rng(0)
    labels, logits = rng.integers(0, 2, 500), 3 * rng.normal(size=500)
    table = table_of(labels.tolist(), logits.tolist(), 0.3)
    cut = logit(0.3)
    distance = {
        i: abs(x - cut)
        for i, (y, x) in enumerate(zip(labels, logits, strict=True))
        if (x >= cut) != y
    }
    expected = sorted(distance, key=lambda i: -distance[i])
    assert worst_mistakes(table, 0.3, 500).tolist() == expected


@pytest.mark.parametrize(("threshold", "worst"), [(0.0, [1, 0]), (1.0, [2, 3])])
def test_mistakes_are_sorted_also_at_thresholds_of_0_and_1(
    threshold: float, worst: list[int]
) -> None:
    table = table_of([0, 0, 1, 1], [-1.0, 2.0, -3.0, 1.0], threshold)
    assert worst_mistakes(table, threshold, 4).tolist() == worst


def test_nothing_is_selected_if_there_is_nothing_to_select() -> None:
    right, wrong = table_of([0, 1], [-1.0, 1.0], 0.5), table_of([0, 1], [1.0, -1.0], 0.5)
    assert len(worst_mistakes(right, 0.5, 5)) == 0
    assert len(sample_hits(wrong, 5, seed=0)) == 0


@pytest.fixture
def uneven() -> pd.DataFrame:
    """100 real images, and 200, 6 and 3 of three generators; a third of each is misclassified."""
    generators = [""] * 100 + ["big"] * 200 + ["small"] * 6 + ["rare"] * 3
    labels = [int(name != "") for name in generators]
    logits = [(1 if label else -1) * (-1 if i % 3 == 0 else 1) for i, label in enumerate(labels)]
    return table_of(labels, logits, 0.5, generators)


def test_hits_are_correct_and_balanced_over_classes_and_generators(uneven: pd.DataFrame) -> None:
    chosen = uneven.iloc[sample_hits(uneven, 24, seed=0)]
    assert (chosen["predicted"] == chosen["label"]).all()
    counts = chosen["generator"].value_counts().to_dict()
    assert counts == {
        "": 12,
        "small": 4,
        "rare": 2,
        "big": 6,
    }  # all correct ones of the small generators


def test_hits_are_drawn_without_replacement_as_the_seed_determines(uneven: pd.DataFrame) -> None:
    first, again = (sample_hits(uneven, 20, seed=1).tolist() for _ in range(2))
    other = sample_hits(uneven, 20, seed=2).tolist()
    assert first == again
    assert first != other
    assert len(set(first)) == 20
    everything = sample_hits(uneven, 10**6, seed=1)
    assert sorted(everything) == np.flatnonzero(uneven["predicted"] == uneven["label"]).tolist()
    assert everything[:20].tolist() == first

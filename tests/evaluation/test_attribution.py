"""The answers of attribution, the choice of its threshold, its table and its metrics."""

import numpy as np
import pandas as pd
import pytest
from scipy.special import softmax

from synthdetect.evaluation.attribution import (
    KEPT,
    Attribution,
    attribution_metrics,
    attribution_table,
    choose_attribution,
)
from synthdetect.evaluation.decision import Decision
from synthdetect.evaluation.predictions import evaluate

KNOWN = ("a", "b")


def images(*answers: tuple[str, str, str]) -> pd.DataFrame:
    """A predictions table of (generator, or real; answer; category), one photograph each."""
    rows = [
        {
            "path": str(number), "label": int(generator != "real"), "category": category,
            "generator": "" if generator == "real" else generator, "source_id": str(number),
            "logit": 1.0 if answer != "real" else -1.0, "attributed": answer, "split": "test",
            "probability": 0.7 if answer != "real" else 0.3, "predicted": int(answer != "real"),
        }
        for number, (generator, answer, category) in enumerate(answers)
    ]  # fmt: skip
    return pd.DataFrame(rows)


def test_an_answer_is_real_a_generator_or_unknown() -> None:
    logits = np.array([[4.0, 0], [0, 4], [0, 1], [4, 0]])
    attribution = Attribution(temperature=2, threshold=float(softmax([0, 2])[1]))
    found = attribution.answer(KNOWN, [1, 1, 1, 0], logits)
    assert found.tolist() == ["a", "b", "unknown", "real"]


def test_the_threshold_keeps_most_validation_images_of_known_generators() -> None:
    rng = np.random.default_rng(0)
    table = pd.DataFrame({"label": 1, "generator": rng.choice(["a", "b", "c", ""], 400)})
    table.loc[::7, "label"] = 0
    true = (table["generator"] == "b").astype(int)
    logits = rng.normal(size=(400, 2)) + 2 * np.eye(2)[true]
    chosen = choose_attribution(KNOWN, table, logits)
    assert chosen is not None
    assert chosen.sound
    counted = (table["label"] == 1) & table["generator"].isin(KNOWN)
    named = chosen.answer(KNOWN, table["label"], logits) != "unknown"
    n = counted.sum()
    assert KEPT <= named[counted].mean() < KEPT + 1 / n + 1e-9
    # Logits of twice the scale have twice the temperature, and the same answers.
    again = choose_attribution(KNOWN, table, 2 * logits)
    assert again is not None
    assert again.temperature == pytest.approx(2 * chosen.temperature, rel=1e-3)
    assert again.threshold == pytest.approx(chosen.threshold, rel=1e-3)


def test_images_that_are_all_told_apart_do_not_make_every_probability_one() -> None:
    table = pd.DataFrame({"label": 1, "generator": ["a", "b"] * 20})
    logits = np.tile([[3.0, -3], [-3, 3]], (20, 1))
    chosen = choose_attribution(KNOWN, table, logits)
    assert chosen is not None
    assert chosen.threshold == pytest.approx(41 / 42, abs=1e-3)


def test_nothing_is_chosen_without_images_of_known_generators() -> None:
    table = pd.DataFrame({"label": [0, 1], "generator": ["a", "c"]})
    assert choose_attribution(KNOWN, table, np.zeros((2, 2))) is None


def test_the_table_counts_every_answer_and_divides_real_images() -> None:
    table = images(
        ("a", "a", ""), ("a", "b", ""), ("b", "unknown", ""), ("new", "unknown", ""),
        ("new", "a", ""), ("", "real", ""), ("real", "real", "x"), ("real", "b", "y"),
    )  # fmt: skip
    found = attribution_table(table, KNOWN, "category").set_index("images_of")
    assert list(found) == ["in_training", "images", "as_real", "as_a", "as_b", "as_unknown"]
    assert found.loc["a"].tolist() == ["yes", 2, 0, 1, 1, 0]
    assert found.loc["b"].tolist() == ["yes", 1, 0, 0, 0, 1]
    assert found.loc["new"].tolist() == ["no", 2, 0, 1, 0, 1]
    assert found.loc["(unnamed)"].tolist() == ["no", 1, 1, 0, 0, 0]
    assert found.loc["real: x"].tolist() == ["", 1, 1, 0, 0, 0]
    assert found.loc["real: y"].tolist() == ["", 1, 0, 0, 1, 0]
    assert attribution_table(table, KNOWN).loc[0, "images_of"] == "real"


def test_the_metrics_have_intervals_and_an_evaluation_has_them() -> None:
    table = images(
        *[("a", "a", "")] * 6, *[("a", "real", "")] * 2, *[("new", "unknown", "")] * 3,
        *[("new", "b", "")] * 9, ("", "unknown", ""), *[("real", "real", "")] * 3,
    )  # fmt: skip
    found = attribution_metrics(table, KNOWN, seed=0).set_index("metric")
    assert found["value"].to_dict() == {"accuracy": 0.75, "unknown_recall": 0.25}
    assert (found["low"] < found["value"]).all()
    assert (found["high"] > found["value"]).all()
    evaluation = evaluate({"test": table}, Decision(), seed=0, generators=KNOWN)["test"]
    assert evaluation.flat("test")["test/attribution/accuracy"] == 0.75
    assert len(evaluation.attribution) == 4
    assert evaluate({"test": table}, Decision(), seed=0)["test"].attribution.empty


def test_a_metric_without_images_is_left_out() -> None:
    found = attribution_metrics(images(("a", "a", ""), ("real", "real", "")), KNOWN, seed=0)
    assert found["metric"].tolist() == ["accuracy"]

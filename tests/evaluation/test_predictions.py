"""The predictions table, and metrics from it: overall, by generator and on control splits."""

import math

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest
from mlflow.utils.validation import _validate_metric_name
from scipy.special import expit
from sklearn.metrics import recall_score, roc_auc_score

from synthdetect.evaluation.decision import Decision
from synthdetect.evaluation.metrics import METRICS
from synthdetect.evaluation.predictions import (
    AT_THRESHOLD,
    MEAN,
    WORST,
    against_real,
    evaluate,
    overall_metrics,
    per_generator,
    prediction_table,
)
from synthdetect.evaluation.summary import summary_rows

NUMBERS = len(METRICS) + 2 * 2 + 2 + 1 + len(AT_THRESHOLD)
"""Metrics of a split with two generators: overall, two of each generator, the mean and the worst,
the oracle's threshold, and those at the oracle's threshold."""


def predictions(
    scores: dict[str, npt.NDArray[np.float64]], split: str = "test", threshold: float = 0.5
) -> pd.DataFrame:
    """A predictions table with logits by generator, where `real` stands for real images."""
    parts = []
    for generator, logits in scores.items():
        n = len(logits)
        label = int(generator != "real")
        rows = pd.DataFrame(
            {
                "path": [f"{split}/{generator}/{i}.png" for i in range(n)],
                "label": np.full(n, label, dtype="int8"),
                "split": split,
                "generator": generator if label else "",
                "category": "",
                "source_id": [f"{split}{i}" for i in range(n)],
                "bytes": 100,
                "mtime_ns": 1,
                "sha256": [f"{split}{generator}{i}" for i in range(n)],
            }
        )
        parts.append(prediction_table(rows, logits, Decision(threshold=threshold)))
    return pd.concat(parts, ignore_index=True)


@pytest.fixture
def table() -> pd.DataFrame:
    rng = np.random.default_rng(0)
    return predictions(
        {
            "real": rng.normal(size=30) - 1,
            "sd14": rng.normal(size=30) + 0.5,
            "glide": rng.normal(size=20) + 2,
        }
    )


# --- the table


def test_the_table_has_rows_scores_and_predicted_labels() -> None:
    rows = pd.DataFrame({"path": ["a", "b", "c"], "label": [0, 1, 1], "bytes": 1, "mtime_ns": 2})
    table = prediction_table(
        rows, np.array([-math.log(3), 0.0, math.log(3)]), Decision(threshold=0.75)
    )
    assert table.columns.tolist() == ["path", "label", "logit", "probability", "predicted"]
    assert table["probability"].tolist() == pytest.approx([0.25, 0.5, 0.75])
    assert table["predicted"].tolist() == [0, 0, int(expit(math.log(3)) >= 0.75)]
    assert prediction_table(rows, np.zeros(3), Decision())["predicted"].tolist() == [1, 1, 1]
    assert rows.columns.tolist() == ["path", "label", "bytes", "mtime_ns"]  # unchanged
    own = prediction_table(rows, np.zeros(3), Decision(), probabilities=np.array([0.4, 0.5, 0.6]))
    assert own["probability"].tolist() == [0.4, 0.5, 0.6]
    assert own["predicted"].tolist() == [0, 1, 1]


# --- by generator


def test_each_generator_is_measured_against_all_real_images(table: pd.DataFrame) -> None:
    found = per_generator(table, 0.5, seed=0)
    assert found["generator"].tolist() == ["glide", "sd14", MEAN, WORST]
    assert found["images"].tolist() == [20, 30, 50, 50]
    for row in found.head(2).to_dict(orient="records"):
        both = table[(table["label"] == 0) | (table["generator"] == row["generator"])]
        assert len(both) == 30 + row["images"]
        assert row["auc"] == pytest.approx(roc_auc_score(both["label"], both["logit"]))
        assert row["recall"] == pytest.approx(recall_score(both["label"], both["logit"] >= 0))
        assert row["auc_low"] <= row["auc"] <= row["auc_high"]
        assert row["real_accuracy"] == (table.loc[table["label"] == 0, "logit"] < 0).mean()


def test_mean_and_worst_are_over_the_generators(table: pd.DataFrame) -> None:
    found = per_generator(table, 0.5, seed=0).set_index("generator")
    each = found.loc[["glide", "sd14"], "auc"]
    assert found.loc[MEAN, "auc"] == pytest.approx(each.mean())
    assert found.loc[WORST, "auc"] == each.min()
    for name in (MEAN, WORST):
        row = found.loc[name]
        assert row["auc_low"] < row["auc"] < row["auc_high"]
        assert math.isnan(row["recall"])
    alone = per_generator(table[table["generator"] != "sd14"], 0.5, seed=0)
    assert alone["generator"].tolist() == ["glide"]


def test_metrics_are_computed_at_the_given_threshold(table: pd.DataFrame) -> None:
    assert per_generator(table, 0.0, seed=0)["recall"].dropna().tolist() == [1.0, 1.0]
    assert per_generator(table, 1.0, seed=0)["recall"].dropna().tolist() == [0.0, 0.0]


def test_without_real_or_without_synthetic_images_there_are_no_generators(
    table: pd.DataFrame,
) -> None:
    assert per_generator(table[table["label"] == 1], 0.5, seed=0).empty
    assert per_generator(table[table["label"] == 0], 0.5, seed=0).empty


def test_intervals_are_over_sources(table: pd.DataFrame) -> None:
    """All images of a source, such as a photograph and its regenerations, are left out together."""
    apart = table.assign(source_id=[f"own{i}" for i in range(len(table))])
    together, alone = (overall_metrics(t, 0.5, seed=0).set_index("metric") for t in (table, apart))
    assert together["value"].equals(alone["value"])
    assert together.loc["auc", "low"] != alone.loc["auc", "low"]
    one = overall_metrics(table.assign(source_id="the only one"), 0.5, seed=0).set_index("metric")
    assert one.loc["auc", ["low", "high"]].isna().all()


# --- controls


def test_control_images_like_the_other_real_ones_have_an_auc_of_one_half() -> None:
    rng = np.random.default_rng(0)
    first, second = (predictions({"real": rng.normal(size=2000)}) for _ in range(2))
    assert against_real(first, first, seed=0)[0] == 0.5
    value, low, high = against_real(first, second, seed=0)
    assert value == pytest.approx(0.5, abs=0.03)
    assert low < value < high


def test_control_images_that_are_taken_for_synthetic_have_an_auc_near_one() -> None:
    rng = np.random.default_rng(0)
    plain, blurred = (predictions({"real": rng.normal(size=500) + s}) for s in (0, 4))
    assert against_real(blurred, plain, seed=0)[0] > 0.99
    assert against_real(plain, blurred, seed=0)[0] < 0.01


def test_the_interval_of_a_control_is_over_the_sources_of_both_tables() -> None:
    """A photograph and images derived from it are drawn together, whichever table they are in."""
    rng = np.random.default_rng(0)
    real = predictions({"real": rng.normal(size=40)})
    made = real.assign(
        split="control", logit=real["logit"] + 0.1, sha256=[f"made{i}" for i in range(40)]
    )
    apart = made.assign(source_id=[f"other{i}" for i in range(40)])
    value, low, high = against_real(made, real, seed=0)
    assert value == roc_auc_score([0] * 40 + [1] * 40, [*real["logit"], *made["logit"]])
    assert low < value < high
    assert against_real(apart, real, seed=0)[0] == value
    wide = np.diff(against_real(apart, real, seed=0)[1:])
    assert high - low < 0.5 * wide  # a photograph and an image derived from it differ little
    assert all(map(math.isnan, against_real(made, real.head(0), seed=0)))


def test_only_splits_without_synthetic_images_are_controls(
    table: pd.DataFrame,
) -> None:
    rng = np.random.default_rng(1)
    blurred = predictions({"real": rng.normal(size=30) + 5}, "control_blur")
    synthetic = predictions({"sd14": rng.normal(size=30)}, "only_synthetic")
    tables = {"val": table, "test": table, "control_blur": blurred, "only_synthetic": synthetic}
    reported: list[str] = []
    found = evaluate(tables, Decision(), seed=0, progress=reported.append)
    assert list(found) == reported == list(tables)
    real = table[table["label"] == 0]
    control = found["control_blur"].overall.set_index("metric").loc["auc_against_real"]
    assert tuple(control) == against_real(blurred, real, seed=0)
    assert control["value"] > 0.99
    for split in ("val", "test", "only_synthetic"):
        assert "auc_against_real" not in set(found[split].overall["metric"])
    shown = summary_rows(found).set_index("images of").loc["control_blur", "AUC [95 %]"]
    assert shown == "{:.3f} [{:.3f}, {:.3f}] vs. real".format(*control)
    assert found["test"].split == "test"
    assert found["test"].predictions is table


def test_without_a_test_split_a_control_is_not_compared() -> None:
    control = predictions({"real": np.zeros(5)}, "control")
    for name in ("control", "test"):
        found = evaluate({name: control}, Decision(), seed=0)[name]
        assert found.extra == {}
        assert "auc_against_real" not in set(found.overall["metric"])


# --- logged metrics


def test_flat_has_every_defined_metric(table: pd.DataFrame) -> None:
    evaluation = evaluate({"test": table}, Decision(), seed=0)["test"]
    flat = evaluation.flat("test")
    overall = evaluation.overall.set_index("metric")["value"]
    glide = evaluation.generators.set_index("generator").loc["glide"]
    assert {f"test/{name}" for name in overall.index} <= set(flat)
    assert flat["test/auc"] == overall["auc"]
    assert flat["test/generator/glide/auc"] == glide["auc"]
    assert flat["test/generator/glide/recall"] == glide["recall"]
    assert {"test/generators/mean/auc", "test/generators/worst/auc"} <= set(flat)
    assert {"test/oracle/threshold", "test/oracle/balanced_accuracy"} <= set(flat)
    assert len(flat) == NUMBERS
    assert {type(value) for value in flat.values()} == {float}


def test_flat_leaves_out_undefined_metrics(table: pd.DataFrame) -> None:
    control = table[table["label"] == 0].assign(split="control")
    flat = evaluate({"test": table, "control": control}, Decision(), seed=0)["control"].flat(
        "control"
    )
    assert set(flat) == {
        "control/accuracy",
        "control/real_accuracy",
        "control/nll",
        "control/brier",
        "control/ece",
        "control/auc_against_real",
    }
    assert flat["control/auc_against_real"] == 0.5


@pytest.mark.parametrize("generator", ["", "DALL·E 3", "SD 1.5 (turbo), v2#1", "a/../b", "x@y"])
def test_mlflow_accepts_the_metric_names_of_any_generator(
    table: pd.DataFrame, generator: str
) -> None:
    renamed = table.assign(generator=table["generator"].replace("glide", generator))
    flat = evaluate({"test": renamed}, Decision(), seed=0)["test"].flat("test")
    assert len(flat) == NUMBERS
    for name in flat:
        _validate_metric_name(name)  # type: ignore[no-untyped-call]

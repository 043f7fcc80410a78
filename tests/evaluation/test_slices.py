"""Slices: their members, names, order and metrics."""

import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import balanced_accuracy_score, roc_auc_score

from synthdetect.datasets.manifest import read
from synthdetect.evaluation.decision import Decision
from synthdetect.evaluation.predictions import prediction_table
from synthdetect.evaluation.slices import default_slices, slice_table, slice_values
from synthdetect.system.errors import UserError


@pytest.fixture
def table() -> pd.DataFrame:
    rng = np.random.default_rng(0)
    n = 120
    label = (np.arange(n) % 2).astype("int8")
    rows = pd.DataFrame(
        {
            "path": [f"{i}.jpg" for i in range(n)],
            "label": label,
            "source_id": [f"s{i // 4}" for i in range(n)],
            "category": np.where(np.arange(n) < 60, "cat", ""),
            "platform": np.where(label == 1, "X", "Facebook"),
            "format": "JPEG",
            "jpeg_quality": np.tile([0, 49, 50, 94, 95, 100], n // 6),
            "width": np.linspace(100, 3000, n),
            "height": 4000,
            "iso": np.arange(n),
            "year": 2020 + np.arange(n) % 3,
        }
    )
    return prediction_table(rows, rng.normal(size=n) + label, Decision())


def test_the_metrics_of_a_slice_are_those_of_its_images(table: pd.DataFrame) -> None:
    found = slice_table(table, ["category"], 0.5, seed=0).set_index("value")
    assert found["images"].to_dict() == {"cat": 60, "(unknown)": 60}
    for value, name in (("cat", "cat"), ("(unknown)", "")):
        part = table[table["category"] == name]
        row = found.loc[value]
        assert (row["real"], row["synthetic"]) == (30, 30)
        assert row["auc"] == pytest.approx(roc_auc_score(part["label"], part["logit"]))
        expected = balanced_accuracy_score(part["label"], part["predicted"])
        assert row["balanced_accuracy"] == pytest.approx(expected)
        assert row["auc_low"] < row["auc"] < row["auc_high"]


@pytest.mark.parametrize("name", ["category", "platform", "jpeg_quality", "size", "iso", "year"])
def test_every_image_is_in_exactly_one_slice(table: pd.DataFrame, name: str) -> None:
    found = slice_table(table, [name], 0.5, seed=0)
    assert found["images"].sum() == len(table)
    assert (found["real"] + found["synthetic"] == found["images"]).all()


def test_metrics_that_need_both_classes_are_undefined_in_slices_with_one(
    table: pd.DataFrame,
) -> None:
    found = slice_table(table, ["platform"], 0.5, seed=0).set_index("value")
    assert math.isnan(found.loc["X", "auc"])
    assert math.isnan(found.loc["X", "auc_low"])
    assert math.isnan(found.loc["X", "real_accuracy"])
    share = table.loc[table["label"] == 1, "predicted"].mean()
    assert found.loc["X", "fake_accuracy"] == pytest.approx(share)


def test_a_single_source_has_no_interval(table: pd.DataFrame) -> None:
    alone = (table["source_id"] == "s0").to_numpy()
    found = slice_table(table.assign(category=np.where(alone, "one", "many")), ["category"], 0.5,
                        seed=0).set_index("value")  # fmt: skip
    assert found.loc["one", ["auc_low", "auc_high"]].isna().all()
    assert np.isfinite(found.loc["one", "auc"])
    assert found.loc["many", ["auc_low", "auc_high"]].notna().all()


def test_numbers_are_binned_at_their_edges(table: pd.DataFrame) -> None:
    names = slice_values(table, "jpeg_quality").head(6).tolist()
    assert names == [
        "none", "1 to below 50", "50 to below 70", "90 to below 95", "95 and more", "95 and more",
    ]  # fmt: skip
    sides = slice_values(table, "size")
    assert sides.iloc[0] == "0 to below 128"
    assert sides.iloc[-1] == "2048 and more"
    quarters = slice_values(table, "iso").value_counts()
    assert quarters.tolist() == [30, 30, 30, 30]
    assert set(slice_values(table, "year")) == {"2020", "2021", "2022"}


def test_slices_are_sorted_by_their_numbers(table: pd.DataFrame) -> None:
    values = slice_table(table, ["size"], 0.5, seed=0)["value"].tolist()
    assert values == sorted(values, key=lambda v: float(v.split()[0]))


def test_default_slices_are_the_columns_in_which_images_differ(table: pd.DataFrame) -> None:
    assert default_slices(table) == ["category", "platform", "jpeg_quality", "size"]
    assert default_slices(table.drop(columns=["platform", "width"])) == ["category", "jpeg_quality"]


def test_images_of_unknown_size_form_a_slice(table: pd.DataFrame) -> None:
    some = table.assign(width=table["width"].astype(object).where(table.index > 3, ""))
    assert slice_values(some, "size").value_counts()["(unknown)"] == 4


@pytest.mark.parametrize(
    "values", [[1, 2, None], ["1", "2", ""], [1.0, 2.0, np.nan]], ids=["null", "text", "float"]
)
def test_whole_numbers_keep_their_names_beside_blanks(values: list[object], tmp_path: Path) -> None:
    file = tmp_path / "manifest.parquet"
    given = pd.DataFrame({"path": ["a", "b", "c"], "label": "real", "camera": values})
    given.to_parquet(file)
    assert slice_values(read(file).table, "camera").tolist() == ["1", "2", "(unknown)"]


def test_a_missing_column_is_refused_with_the_available_ones(table: pd.DataFrame) -> None:
    with pytest.raises(UserError, match=r"--slices.*'camera'.*category.*size"):
        slice_table(table, ["camera"], 0.5, seed=0)

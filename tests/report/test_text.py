"""Tests of the formatting of names, numbers and tables, and of the cleaning of text."""

import pandas as pd
import pytest

from synthdetect.report.text import (
    clean,
    format_interval,
    format_metric,
    format_number,
    format_table,
    label,
)


@pytest.mark.parametrize(
    ("value", "shown"),
    [("0.8934", "0.893"), ("1.0", "1.000"), ("", "undefined"), (float("nan"), "undefined"),
     ("0.00001", "0.000"), (-0.25, "-0.250")],
)  # fmt: skip
def test_a_metric_has_three_decimals_or_is_undefined(value: float | str, shown: str) -> None:
    assert format_metric(value) == shown


@pytest.mark.parametrize(
    ("value", "shown"),
    [("12345", "12345"), ("0.00001", "1.0e-05"), ("2500000.5", "2.5e+06"), ("inf", "∞"),
     ("-inf", "-∞"), ("nan", "undefined"), (3.0, "3.000")],
)  # fmt: skip
def test_small_and_large_numbers_are_in_scientific_notation(value: float | str, shown: str) -> None:
    assert format_number(value) == shown


def test_intervals_are_in_brackets() -> None:
    assert format_interval("0.8931", "0.85502", "0.93149") == "0.893 [0.855, 0.931]"
    assert format_interval("", "", "") == "undefined"
    assert format_interval("0.5", "", "") == "0.500 [undefined]"


def test_a_value_and_its_bounds_become_one_column() -> None:
    table = pd.DataFrame(
        {"generator": ["1.50", "a"], "images": ["1066.0", "2"], "auc": ["0.5", ""],
         "auc_low": ["0.4", ""], "auc_high": ["0.6", ""], "ece": ["0.1", ""], "seen_as": ["x", ""]}
    )  # fmt: skip
    shown = format_table(table)
    assert list(shown) == ["generator", "images", "AUC [95 %]", "ECE", "seen as"]
    assert shown.to_numpy().tolist() == [
        ["1.50", "1066", "0.500 [0.400, 0.600]", "0.100", "x"],
        ["a", "2", "undefined", "undefined", ""],
    ]


def test_unnamed_bounds_belong_to_the_column_before_them() -> None:
    table = pd.DataFrame({"factor": ["data"], "effect": ["0.1"], "low": ["0"], "high": ["0.2"]})
    assert format_table(table).to_numpy().tolist() == [["data", "0.100 [0.000, 0.200]"]]
    assert list(format_table(pd.DataFrame({"low": ["1"], "high": ["2"]}))) == ["low", "high"]


def test_text_in_columns_of_numbers_is_unchanged() -> None:
    table = pd.DataFrame({"auc": ["0.51234", "high"], "auc_low": ["0", "1"], "auc_high": ["1", "1"],
                          "sum": ["1_000", "infinity"]})  # fmt: skip
    assert format_table(table)["AUC"].tolist() == ["0.51234", "high"]
    assert format_table(table)["sum"].tolist() == ["1_000", "infinity"]


def test_two_columns_with_the_same_label_are_both_kept() -> None:
    shown = format_table(pd.DataFrame({"a_b": ["x"], "a b": ["y"]}))
    assert list(shown) == ["a b", "a b"]
    assert shown.to_numpy().tolist() == [["x", "y"]]


def test_metrics_have_readable_labels() -> None:
    assert label("tpr_at_fpr_5") == "TPR at 5 % FPR"
    assert label("balanced_accuracy") == "balanced accuracy"


def test_secrets_are_removed() -> None:
    assert (
        clean("postgresql://anna:hunter2@db.example/mlflow") == "postgresql://***@db.example/mlflow"
    )


def test_invisible_and_reordering_characters_are_escaped() -> None:
    assert clean("a\u202egnp.exe") == "a\\u202egnp.exe"
    assert clean("a\x00\x1b[31m\x9b") == "a\\u0000\\u001b[31m\\u009b"
    assert clean("caf\udce9") == "caf\\udce9"  # a file name that is not UTF-8
    assert clean("צילום עברי, 写真, a\tb") == "צילום עברי, 写真, a\tb"

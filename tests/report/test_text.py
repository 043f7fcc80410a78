"""Names and numbers as a report writes them; and what it does not show."""

import pandas as pd
import pytest

from synthdetect.report.text import clean, interval, label, metric, number, readable


@pytest.mark.parametrize(
    ("value", "shown"),
    [("0.8934", "0.893"), ("1.0", "1.000"), ("", "undefined"), (float("nan"), "undefined"),
     ("0.00001", "0.000"), (-0.25, "-0.250")],
)  # fmt: skip
def test_a_metric_has_three_decimals_or_is_undefined(value: float | str, shown: str) -> None:
    assert metric(value) == shown


@pytest.mark.parametrize(
    ("value", "shown"),
    [("12345", "12345"), ("0.00001", "1.0e-05"), ("2500000.5", "2.5e+06"), ("inf", "∞"),
     ("-inf", "-∞"), ("nan", "undefined"), (3.0, "3.000")],
)  # fmt: skip
def test_other_numbers_keep_what_is_small(value: float | str, shown: str) -> None:
    assert number(value) == shown


def test_intervals_stand_in_brackets() -> None:
    assert interval("0.8931", "0.85502", "0.93149") == "0.893 [0.855, 0.931]"
    assert interval("", "", "") == "undefined"
    assert interval("0.5", "", "") == "0.500 [undefined]"


def test_columns_that_belong_together_become_one() -> None:
    table = pd.DataFrame(
        {"generator": ["1.50", "a"], "images": ["1066.0", "2"], "auc": ["0.5", ""],
         "auc_low": ["0.4", ""], "auc_high": ["0.6", ""], "ece": ["0.1", ""], "seen_as": ["x", ""]}
    )  # fmt: skip
    shown = readable(table)
    assert list(shown) == ["generator", "images", "AUC [95 %]", "ECE", "seen as"]
    assert shown.to_numpy().tolist() == [
        ["1.50", "1066", "0.500 [0.400, 0.600]", "0.100", "x"],
        ["a", "2", "undefined", "undefined", ""],
    ]


def test_bounds_without_a_name_belong_to_the_column_before_them() -> None:
    table = pd.DataFrame({"factor": ["data"], "effect": ["0.1"], "low": ["0"], "high": ["0.2"]})
    assert readable(table).to_numpy().tolist() == [["data", "0.100 [0.000, 0.200]"]]
    assert list(readable(pd.DataFrame({"low": ["1"], "high": ["2"]}))) == ["low", "high"]


def test_text_where_numbers_are_expected_stays_as_it_is() -> None:
    table = pd.DataFrame({"auc": ["0.51234", "high"], "auc_low": ["0", "1"], "auc_high": ["1", "1"],
                          "sum": ["1_000", "infinity"]})  # fmt: skip
    assert readable(table)["AUC"].tolist() == ["0.51234", "high"]
    assert readable(table)["sum"].tolist() == ["1_000", "infinity"]


def test_two_columns_of_one_name_are_both_kept() -> None:
    shown = readable(pd.DataFrame({"a_b": ["x"], "a b": ["y"]}))
    assert list(shown) == ["a b", "a b"]
    assert shown.to_numpy().tolist() == [["x", "y"]]


def test_metrics_have_names_for_people() -> None:
    assert label("tpr_at_fpr_5") == "TPR at 5 % FPR"
    assert label("balanced_accuracy") == "balanced accuracy"


def test_secrets_are_taken_out() -> None:
    assert (
        clean("postgresql://anna:hunter2@db.example/mlflow") == "postgresql://***@db.example/mlflow"
    )


def test_characters_that_hide_or_reorder_others_are_spelled_out() -> None:
    assert clean("a\u202egnp.exe") == "a\\u202egnp.exe"
    assert clean("a\x00\x1b[31m\x9b") == "a\\u0000\\u001b[31m\\u009b"
    assert clean("caf\udce9") == "caf\\udce9"  # a file's name that is not UTF-8
    assert clean("צילום עברי, 写真, a\tb") == "צילום עברי, 写真, a\tb"

"""Tests of manifest diffs: each kind of change, and differences that are no change."""

from collections.abc import Callable

import pandas as pd
import pytest

from synthdetect.reproduction.manifest_diff import diff_manifests, match

COLUMNS = ["path", "label", "split", "generator", "category", "source_id", "sha256"]


@pytest.fixture
def recorded() -> pd.DataFrame:
    rows = [
        ("a", 0, "train", "", "x", "s1", "aa"),
        ("b", 1, "train", "g", "x", "s1", "bb"),
        ("c", 0, "val", "", "y", "s2", "cc"),
        ("d", 0, "val", "", "y", "s2", "cc"),  # a copy of c
    ]
    return pd.DataFrame(rows, columns=COLUMNS)


def listed(recorded: pd.DataFrame, today: pd.DataFrame) -> list[tuple[str, ...]]:
    return [tuple(row) for row in diff_manifests(recorded, today).to_numpy()]


@pytest.mark.parametrize(
    "today",
    [
        lambda table: table,
        lambda table: table[::-1],
        lambda table: table.assign(further=1),
        lambda table: table.assign(path="/moved/" + table["path"]),
        lambda table: table.assign(path="/moved/" + table["path"])[::-1],
        lambda table: table.replace({"path": {"c": "somewhere/else"}}),
        lambda table: table.astype({"label": "int8"}),
    ],
)
def test_another_order_place_or_column_is_no_change(
    recorded: pd.DataFrame, today: Callable[[pd.DataFrame], pd.DataFrame]
) -> None:
    now = today(recorded).reset_index(drop=True)
    assert listed(recorded, now) == []
    rows = match(recorded, now)
    assert sorted(rows) == [0, 1, 2, 3]
    kept = now.iloc[rows].reset_index(drop=True)[COLUMNS[1:]].astype(str)
    assert kept.equals(recorded[COLUMNS[1:]].astype(str))


@pytest.mark.parametrize(
    ("column", "value", "expected"),
    [
        ("sha256", "other", ("altered", "b", "bb", "other")),
        ("label", 0, ("other label", "b", "1", "0")),
        ("split", "val", ("other split", "b", "train", "val")),
        ("generator", "h", ("other generator", "b", "g", "h")),
        ("category", "", ("other category", "b", "x", "")),
        ("source_id", "s9", ("other source", "b", "s1", "s9")),
    ],
)
def test_each_change_of_an_image_is_named(
    recorded: pd.DataFrame, column: str, value: object, expected: tuple[str, ...]
) -> None:
    today = recorded.copy()
    today.loc[1, column] = value
    assert listed(recorded, today) == [expected]


def test_removed_and_added_images_are_named_and_one_of_two_copies_is_found(
    recorded: pd.DataFrame,
) -> None:
    today = recorded.drop(index=[1, 2]).replace({"path": {"d": "e"}})
    today.loc[9] = ["n", 1, "train", "g", "x", "s1", "nn"]
    assert listed(recorded, today) == [
        ("removed", "b", "", ""),
        ("removed", "d", "", ""),  # e may as well be c, which comes first
        ("added", "n", "", ""),
    ]


def test_an_image_in_place_of_another_is_altered_not_moved(recorded: pd.DataFrame) -> None:
    swapped = recorded.replace({"path": {"a": "b", "b": "a"}})
    assert {row[:2] for row in listed(recorded, swapped)} >= {("altered", "a"), ("altered", "b")}


def test_a_hash_is_shown_by_its_beginning(recorded: pd.DataFrame) -> None:
    today = recorded.assign(sha256=["1" * 64, "bb", "cc", "cc"])
    assert listed(recorded, today) == [("altered", "a", "aa", "1" * 12)]

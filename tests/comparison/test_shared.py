"""Tests of the images that predictions tables have in common."""

import pandas as pd

from synthdetect.comparison.shared import shared_images


def table(paths: str, hashes: str = "", labels: str = "", **columns: object) -> pd.DataFrame:
    """A table with one character for each image."""
    made = pd.DataFrame({"path": list(paths), **columns})
    made["label"] = [int(label) for label in labels or "0" * len(paths)]
    return made.assign(sha256=list(hashes)) if hashes else made


def test_contents_count_and_not_paths_where_all_have_hashes() -> None:
    found = shared_images([table("abc", "123"), table("xya", "319")])
    assert [list(one["path"]) for one in found.tables] == [["a", "c"], ["y", "x"]]
    assert found.sizes == (3, 3)
    assert found.relabelled == 0


def test_paths_count_where_a_table_has_no_hashes() -> None:
    for other in (table("ca"), table("ca", "3 ").replace(" ", "")):
        found = shared_images([table("abc", "123"), other])
        assert [list(one["path"]) for one in found.tables] == [["a", "c"]] * 2


def test_copies_are_matched_one_by_one() -> None:
    found = shared_images([table("abc", "113"), table("xyz", "111")])
    assert [list(one["path"]) for one in found.tables] == [["a", "b"], ["x", "y"]]


def test_images_with_other_labels_are_left_out_and_counted() -> None:
    found = shared_images([table("abc", labels="010"), table("cba", labels="000")])
    assert list(found.tables[0]["path"]) == ["a", "c"]
    assert found.relabelled == 1


def test_photographs_are_those_of_the_table_that_names_them() -> None:
    named = table("ab", source_id=["p", "p"])
    found = shared_images([table("ab"), named])
    assert found.unit == "photograph"
    assert [list(one["source_id"]) for one in found.tables] == [["p", "p"]] * 2


def test_nothing_in_common_is_no_error() -> None:
    assert shared_images([table("ab"), table("xy")]).images == 0

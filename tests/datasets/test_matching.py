"""Data of compared trainings: equal in size and alike in kind, and validated on the same images."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from synthdetect.datasets.manifest import Manifest
from synthdetect.datasets.matching import match_size, validate_alike


def photographs(count: int, *, generators: tuple[str, ...] = ("a", "b", "c")) -> pd.DataFrame:
    """A table with the real image of each photograph and its output of one generator."""
    number = np.arange(count)
    real = pd.DataFrame({"label": 0, "generator": "", "number": number})
    made = pd.DataFrame(
        {"label": 1, "generator": [generators[i % len(generators)] for i in number]}
    ).assign(number=number)
    table = pd.concat([real, made], ignore_index=True)
    category = np.array(["sky", "sea", "cat", "cat", "cat"])[table["number"] % 5]
    source = [f"p{number}" for number in table["number"]]
    paths = [f"{i}.jpg" for i in table.index]
    return table.assign(category=category, source_id=source, path=paths, split="train")


@pytest.mark.parametrize("seed", range(5))
def test_as_many_of_each_class_are_drawn_from_whole_photographs(seed: int) -> None:
    pool = photographs(600)
    narrow = pool[(pool["generator"] == "a") & (pool["category"] == "sky")]
    narrow = pd.concat([narrow, pool[pool["label"] == 0].head(len(narrow))])
    drawn = match_size(pool, narrow, seed=seed)
    assert drawn["label"].value_counts().to_dict() == {0: 40, 1: 40}
    assert drawn["path"].is_unique
    assert drawn.index.is_monotonic_increasing
    # Each photograph has two images, so forty photographs are drawn, and not eighty.
    assert drawn["source_id"].nunique() == 40


@pytest.mark.parametrize("seed", range(5))
def test_categories_and_generators_keep_their_shares(seed: int) -> None:
    pool = photographs(600)
    drawn = match_size(pool, pool.head(120).assign(label=[0, 1] * 60), seed=seed)
    for column in ("category", "generator"):
        shares = (table[column].value_counts(normalize=True) for table in (pool, drawn))
        apart = next(shares).sub(next(shares), fill_value=0).abs()
        # A draw without strata differs by .06 (one standard deviation) for cat.
        assert apart.max() < 0.04


def test_classes_in_other_proportions_are_drawn_as_given() -> None:
    pool = photographs(100)
    drawn = match_size(pool, pd.DataFrame({"label": [0] * 10 + [1] * 70}), seed=0)
    assert drawn["label"].value_counts().to_dict() == {0: 10, 1: 70}
    real, made = (set(drawn.loc[drawn["label"] == label, "source_id"]) for label in (0, 1))
    assert real < made


def test_images_without_a_photograph_are_drawn_one_by_one() -> None:
    pool = photographs(200).assign(source_id="")
    drawn = match_size(pool, pd.DataFrame({"label": [0] * 30 + [1] * 60}), seed=0)
    assert drawn["label"].value_counts().to_dict() == {0: 30, 1: 60}
    assert set(drawn["generator"].value_counts()) == {30, 20}


def test_the_seed_decides_which_photographs() -> None:
    pool, like = photographs(100), photographs(20)
    first, again, other = (set(match_size(pool, like, seed=s)["path"]) for s in (1, 1, 2))
    assert first == again
    assert first != other


def test_every_image_can_be_drawn() -> None:
    pool = photographs(30)
    pd.testing.assert_frame_equal(match_size(pool, pool, seed=0), pool)


def test_validation_leaves_out_what_only_the_diverse_data_have() -> None:
    train, val = photographs(30), photographs(60).assign(split="val")
    test = photographs(30).assign(split="test")
    # Of a generator and a category that nobody trained on, everybody knows equally little.
    val.loc[[5, 6], "category"], val.loc[65, "generator"] = "moon", "unknown"
    # No generator made a real image, whatever its row says.
    val.loc[0, "generator"] = "c"
    table = pd.concat([train, val, test], ignore_index=True)
    narrow = train[train["generator"].isin(["", "a"]) & (train["category"] == "cat")]
    manifest = Manifest(table, Path(), "some")
    found = validate_alike(manifest, narrow, train)
    kept = found.split("val").table
    assert set(kept["category"]) == {"cat", "moon"}
    assert set(kept.loc[kept["label"] == 1, "generator"]) <= {"a", "unknown"}
    expected = val[
        val["category"].isin(["cat", "moon"])
        & ((val["label"] == 0) | val["generator"].isin(["a", "unknown"]))
    ]
    assert kept["path"].tolist() == expected["path"].tolist()
    for split in ("train", "test"):
        assert len(found.split(split)) == len(manifest.split(split))


def test_equal_data_leave_validation_whole() -> None:
    table = pd.concat([photographs(30), photographs(30).assign(split="val")], ignore_index=True)
    manifest = Manifest(table, Path(), "some")
    train = manifest.split("train").table
    assert len(validate_alike(manifest, train, train)) == len(manifest)

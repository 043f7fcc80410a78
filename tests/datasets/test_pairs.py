"""The photograph of a synthetic image is found by split, source, file name and size."""

from pathlib import Path

import pandas as pd
import pytest

from synthdetect.datasets.manifest import Manifest, load
from synthdetect.datasets.pairs import photographs, require_photographs
from synthdetect.system.errors import UserError

REAL, SYNTHETIC = 0, 1


def table(*rows: tuple[str, int, str, int]) -> pd.DataFrame:
    """Training images: path, label, source and width."""
    made = pd.DataFrame(list(rows), columns=["path", "label", "source_id", "width"])
    return made.assign(split="train", height=64)


def test_crops_of_one_photograph_are_told_apart_by_their_file_names() -> None:
    found = photographs(
        table(
            ("fake/a_1.png", SYNTHETIC, "a", 64),
            ("real/a_0.jpg", REAL, "a", 64),
            ("real/a_1.jpg", REAL, "a", 64),
            ("fake/a_0.png", SYNTHETIC, "a", 64),
            ("other/a_0.v2.webp", SYNTHETIC, "a", 64),
        )
    )
    assert found.tolist() == [2, -1, -1, 1, -1]


def test_the_only_photograph_of_a_source_may_have_any_name() -> None:
    found = photographs(
        table(
            ("real/a.jpg", REAL, "a", 64),
            ("fake/x.png", SYNTHETIC, "a", 64),
            ("fake/y.png", SYNTHETIC, "a", 64),
            ("fake/a.png", SYNTHETIC, "b", 64),
        )
    )
    assert found.tolist() == [-1, 0, 0, -1]


def test_an_image_of_another_size_or_split_or_of_no_source_is_no_partner() -> None:
    rows = table(
        ("real/a.jpg", REAL, "a", 64),
        ("fake/a.png", SYNTHETIC, "a", 128),
        ("real/b.jpg", REAL, "b", 64),
        ("fake/b.png", SYNTHETIC, "b", 64),
        ("real/c.jpg", REAL, "", 64),
        ("fake/c.png", SYNTHETIC, "", 64),
    )
    rows.loc[2, "split"] = "val"
    assert (photographs(rows) == -1).all()


def test_every_synthetic_training_image_of_the_sample_has_its_photograph() -> None:
    rows = load("sample").split("train").table.assign(width=224, height=224)
    found = photographs(rows)
    synthetic = rows["label"] == SYNTHETIC
    assert ((found >= 0) == synthetic).all()
    assert (rows["label"].to_numpy()[found[synthetic]] == REAL).all()
    names = rows["path"].str.rsplit("/", n=1).str[1].to_numpy()
    assert (names[found[synthetic]] == names[synthetic]).all()


def test_data_without_any_pair_are_refused() -> None:
    rows = table(("real/a.jpg", REAL, "a", 64), ("fake/a.png", SYNTHETIC, "b", 64))
    with pytest.raises(UserError, match="--pair-mix-pixels"):
        require_photographs(Manifest(rows, Path(), "mine"))
    rows["source_id"] = "a"
    require_photographs(Manifest(rows, Path(), "mine"))

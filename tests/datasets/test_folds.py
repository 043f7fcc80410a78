"""Folds: sources stay whole, every image validates once, and generators can be left out."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from synthdetect.datasets.folds import (
    assign_folds,
    fold_manifest,
    merge_val_into_train,
    read_folds,
)
from synthdetect.datasets.index import index
from synthdetect.datasets.manifest import Manifest, load
from synthdetect.datasets.options import FoldOptions
from synthdetect.system.errors import UserError


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    patch = pytest.MonkeyPatch()
    patch.setenv("SYNTHDETECT_CACHE", str(tmp_path_factory.mktemp("cache")))
    manifest = index(load("sample"))
    patch.undo()
    return manifest


def sources(table: pd.DataFrame) -> set[str]:
    return set(table["source_id"])


@pytest.mark.parametrize("stratify", ["label", "category"])
def test_each_image_validates_once_and_sources_stay_whole(sample: Manifest, stratify: str) -> None:
    folds = assign_folds(sample, FoldOptions(folds=5, stratify=stratify), seed=42)  # type: ignore[arg-type]
    development = sample.table[sample.table["split"].isin(["train", "val"])]
    assert sorted(folds["path"]) == sorted(development["path"])
    assert sorted(folds["fold"].unique()) == [1, 2, 3, 4, 5]
    validated = []
    for fold in range(1, 6):
        part = fold_manifest(sample, folds, fold)
        train, val = part.split("train").table, part.split("val").table
        assert not sources(train) & sources(val)
        assert len(train) + len(val) == len(development)
        assert 0.1 < len(val) / len(development) < 0.3
        assert abs(val["label"].mean() - 0.5) < 0.02
        assert len(part.split("test")) == len(sample.split("test"))
        validated += val["path"].tolist()
    assert sorted(validated) == sorted(development["path"])


def test_leaving_a_generator_out_keeps_generators_and_sources_apart(sample: Manifest) -> None:
    folds = assign_folds(sample, FoldOptions(group_by="generator"), seed=42)
    held_out = folds.groupby("fold")["held_out"].first().to_dict()
    assert sorted(held_out.values()) == ["realesr_animevideov3", "realesrgan_x4plus"]
    for fold, generator in held_out.items():
        part = fold_manifest(sample, folds, fold)
        train, val = part.split("train").table, part.split("val").table
        assert set(val["generator"]) == {"", generator}
        assert generator not in set(train["generator"])
        assert len(set(train["generator"])) == 2
        assert not sources(train) & sources(val)


def test_the_only_generator_cannot_be_left_out(sample: Manifest) -> None:
    table = sample.table
    alone = sample.with_table(table[table["generator"].isin(["", "realesrgan_x4plus"])])
    with pytest.raises(UserError, match=r"--group-by generator: .*1 generator"):
        assign_folds(alone, FoldOptions(group_by="generator"), seed=42)


def test_the_seed_decides(sample: Manifest) -> None:
    first, same, other = (assign_folds(sample, FoldOptions(), seed=seed) for seed in (1, 1, 2))
    assert first.equals(same)
    assert not first.equals(other)


def test_too_few_sources_are_refused(sample: Manifest) -> None:
    few = sample.table[sample.table["source_id"].isin(sorted(sources(sample.table))[:3])]
    with pytest.raises(UserError, match=r"--folds: .*too few sources"):
        assign_folds(sample.with_table(few), FoldOptions(folds=50), seed=0)


def test_val_can_be_merged_into_train(sample: Manifest) -> None:
    part = merge_val_into_train(sample)
    assert part.splits == ["train", "test", "control"]
    assert len(part.split("train")) == len(sample.split("train")) + len(sample.split("val"))


def test_folds_are_read_back_only_for_the_same_images(sample: Manifest, tmp_path: Path) -> None:
    folds = assign_folds(sample, FoldOptions(), seed=42)
    path = tmp_path / "folds.csv"
    folds.to_csv(path, index=False)
    assert np.array_equal(read_folds(path, sample)["fold"], folds["fold"])
    folds.iloc[1:].to_csv(path, index=False)
    with pytest.raises(UserError, match="1 are missing, 0 are unknown"):
        read_folds(path, sample)
    path.write_text("nonsense\n1\n")
    with pytest.raises(UserError, match=r"--folds-from: .*folds\.csv"):
        read_folds(path, sample)

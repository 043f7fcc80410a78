"""Folds: sources stay whole, every image validates once, and generators can be held out."""

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
from synthdetect.datasets.splits import group_codes
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


def assigned(manifest: Manifest, *, seed: int = 42, **options: object) -> pd.DataFrame:
    return assign_folds(manifest, FoldOptions.resolve(dict(options)), seed=seed, val_share=0.15)


def read(path: Path, manifest: Manifest) -> pd.DataFrame:
    return read_folds(path, manifest, seed=42, val_share=0.15)


@pytest.mark.parametrize("stratify", ["label", "category"])
def test_each_image_validates_once_and_sources_stay_whole(sample: Manifest, stratify: str) -> None:
    folds = assigned(sample, folds=5, stratify=stratify)
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


def test_a_fold_neither_trains_nor_validates_on_the_generator_that_it_holds_out(
    sample: Manifest,
) -> None:
    folds = assigned(sample, group_by="generator")
    held_out = folds.groupby("fold")["held_out"].first().to_dict()
    assert sorted(held_out.values()) == ["realesr_animevideov3", "realesrgan_x4plus"]
    for fold, generator in held_out.items():
        part = fold_manifest(sample, folds, fold)
        assert part.splits == ["train", "val", "test", "control", "held_out"]
        tables = {name: part.split(name).table for name in ("train", "val", "held_out")}
        for name in ("train", "val"):
            assert generator not in set(tables[name]["generator"])
            assert set(tables[name]["generator"]) == {"", *held_out.values()} - {generator}
        assert set(tables["held_out"]["generator"]) == {"", generator}
        groups = pd.Series(group_codes(part.table)).groupby(part.table["split"].to_numpy())
        sets = {name: set(codes) for name, codes in groups}
        for one, other in (("train", "val"), ("train", "held_out"), ("val", "held_out")):
            assert not sets[one] & sets[other]
        learned = len(tables["train"]) + len(tables["val"])
        assert 0.1 < len(tables["val"]) / learned < 0.2
        assert len(part.split("test")) == len(sample.split("test"))


def test_every_generator_of_a_fold_validates_in_its_share(sample: Manifest) -> None:
    """Also where a generator has few images, each of a photograph of its own."""
    rows = 400
    generator = np.array(["", "", "", "a", "a", "b", "c", ""])[np.arange(rows) % 8]
    table = pd.DataFrame(
        {
            "path": [f"{n}.jpg" for n in range(rows)],
            "label": (generator != "").astype(np.int8),
            "split": "train",
            "generator": generator,
            "category": "",
            "source_id": [f"s{n}" for n in range(rows)],
            "sha256": "",
        }
    )
    manifest = Manifest(table, sample.root, "many")
    folds = assigned(manifest, group_by="generator")
    for fold, held_out in folds.groupby("fold")["held_out"].first().items():
        val = fold_manifest(manifest, folds, int(str(fold))).split("val").table
        counts = val["generator"].value_counts()
        assert set(counts.index) == {"", "a", "b", "c"} - {held_out}
        assert counts.min() >= 3


def test_the_split_of_the_held_out_images_must_be_free(sample: Manifest) -> None:
    table = sample.table.replace({"split": {"control": "held_out"}})
    manifest = sample.with_table(table)
    folds = assigned(manifest, group_by="generator")
    with pytest.raises(UserError, match="already has a split 'held_out'"):
        fold_manifest(manifest, folds, 1)
    assert fold_manifest(manifest, assigned(manifest), 1).splits[-1] == "held_out"


def test_the_only_generator_cannot_be_left_out(sample: Manifest) -> None:
    table = sample.table
    alone = sample.with_table(table[table["generator"].isin(["", "realesrgan_x4plus"])])
    with pytest.raises(UserError, match=r"--group-by generator: .*1 generator"):
        assigned(alone, group_by="generator")


def test_the_seed_decides(sample: Manifest) -> None:
    first, same, other = (assigned(sample, seed=seed) for seed in (1, 1, 2))
    assert first.equals(same)
    assert not first.equals(other)


def test_too_few_sources_are_refused(sample: Manifest) -> None:
    few = sample.table[sample.table["source_id"].isin(sorted(sources(sample.table))[:3])]
    with pytest.raises(UserError, match=r"--folds: .*too few sources"):
        assigned(sample.with_table(few), folds=50)


def test_val_can_be_merged_into_train(sample: Manifest) -> None:
    part = merge_val_into_train(sample)
    assert part.splits == ["train", "test", "control"]
    assert len(part.split("train")) == len(sample.split("train")) + len(sample.split("val"))


def test_folds_are_read_back_only_for_the_same_images(sample: Manifest, tmp_path: Path) -> None:
    folds = assigned(sample)
    path = tmp_path / "folds.csv"
    folds.to_csv(path, index=False)
    assert np.array_equal(read(path, sample)["fold"], folds["fold"])
    folds.iloc[1:].to_csv(path, index=False)
    with pytest.raises(UserError, match="1 are missing, 0 are unknown"):
        read(path, sample)
    path.write_text("nonsense\n1\n")
    with pytest.raises(UserError, match=r"--folds-from: .*folds\.csv"):
        read(path, sample)


def test_folds_that_hold_generators_out_are_read_back(sample: Manifest, tmp_path: Path) -> None:
    """Those of older versions have no column `val`, which is then assigned."""
    folds = assigned(sample, group_by="generator")
    path = tmp_path / "folds.csv"
    folds.to_csv(path, index=False)
    pd.testing.assert_frame_equal(read(path, sample), folds, check_dtype=False)
    folds.drop(columns="val").to_csv(path, index=False)
    pd.testing.assert_frame_equal(read(path, sample), folds, check_dtype=False)

    folds.assign(val=np.arange(len(folds)) % 2).to_csv(path, index=False)
    with pytest.raises(UserError, match="one source to train and to val"):
        read(path, sample)
    for held_out in (folds["held_out"].where(folds["fold"] == 1, ""), folds["held_out"][::-1]):
        folds.assign(held_out=held_out.to_numpy()).to_csv(path, index=False)
        with pytest.raises(UserError, match="one held_out generator for each fold"):
            read(path, sample)
    folds.assign(fold=-folds["fold"]).to_csv(path, index=False)
    with pytest.raises(UserError, match="negative number"):
        read(path, sample)

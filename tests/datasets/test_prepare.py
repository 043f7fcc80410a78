"""Preparation of the data of a training, and of the folds of a cross-validation."""

from pathlib import Path

import pandas as pd
import pytest

from synthdetect.datasets.folds import assign_folds
from synthdetect.datasets.options import DataOptions
from synthdetect.datasets.prepare import Prepared, prepare, prepare_whole
from synthdetect.datasets.target import load_target
from synthdetect.runs.cross_validation import fold_data, refit_data, require_valid_folds
from synthdetect.runs.options import CvOptions, TrainOptions
from synthdetect.system.errors import UserError


@pytest.fixture
def extra(small_table: pd.DataFrame, tmp_path: Path) -> Path:
    """A supplement: test images of one generator, which `data` does not have."""
    rows = small_table[small_table["split"] == "test"]
    file = tmp_path / "extra.csv"
    rows[rows["generator"] == rows["generator"].max()].to_csv(file, index=False)
    return file


@pytest.fixture
def data(small_table: pd.DataFrame, tmp_path: Path) -> Path:
    """A manifest of train and val images."""
    file = tmp_path / "labelled.csv"
    small_table[small_table["split"].isin(["train", "val"])].to_csv(file, index=False)
    return file


def prepare_folds(data: Path, **given: object) -> tuple[CvOptions, Prepared, pd.DataFrame]:
    options = CvOptions.resolve({"data": str(data), "folds": 3, **given})
    prepared = prepare_whole(options.data, seed=1)
    return options, prepared, assign_folds(prepared.manifest, options.folds, seed=1, val_share=0.15)


def generators(table: pd.DataFrame) -> set[str]:
    return set(table["generator"]) - {""}


def test_a_fold_trains_on_selected_images_and_validates_on_all(data: Path) -> None:
    selected = "realesrgan_x4plus"
    options, prepared, folds = prepare_folds(data, generators=selected)
    for fold in (1, 2, 3):
        part = fold_data(options, prepared, folds, fold).manifest
        assert generators(part.split("train").table) == {selected}
        assert generators(part.split("val").table) > {selected}
        assert set(part.split("val").table["path"]) == set(folds.loc[folds["fold"] == fold, "path"])
    assert generators(refit_data(options, prepared).manifest.split("train").table) == {selected}


def test_no_fold_trains_on_more_than_max_images(data: Path) -> None:
    options, prepared, folds = prepare_folds(data, max_images=10)
    trained = [fold_data(options, prepared, folds, n).manifest.split("train") for n in (1, 2, 3)]
    assert [len(train) for train in trained] == [10, 10, 10]
    assert len(refit_data(options, prepared).manifest) == 10


def test_a_supplement_trains_in_every_fold_and_validates_in_none(data: Path, extra: Path) -> None:
    options, prepared, folds = prepare_folds(data, supplement=str(extra))
    added = set(pd.read_csv(extra)["generator"])
    assert len(folds) == len(pd.read_csv(data))
    for fold in (1, 2, 3):
        part = fold_data(options, prepared, folds, fold).manifest
        assert added <= generators(part.split("train").table)
        assert not added & generators(part.split("val").table)
        assert part.splits == ["train", "val"]
    assert added <= generators(refit_data(options, prepared).manifest.split("train").table)


def test_a_supplement_is_refused_as_target(data: Path, extra: Path) -> None:
    _, prepared, _ = prepare_folds(data, supplement=str(extra))
    with pytest.raises(UserError, match="--target split:supplement: "):
        load_target("split:supplement", prepared.manifest, on_bad_image="stop")


def test_a_supplement_with_a_photograph_of_the_data_is_refused(data: Path, extra: Path) -> None:
    known, added = pd.read_csv(data), pd.read_csv(extra)
    val = known.loc[known["split"] == "val", "source_id"].iloc[0]
    added.assign(source_id=val).to_csv(extra, index=False)
    with pytest.raises(UserError, match=r"source_id .*train or val"):
        prepare(DataOptions(data=str(data), supplement=str(extra)), seed=1)


def test_a_fold_without_one_class_is_refused_before_any_is_trained(data: Path) -> None:
    table = pd.read_csv(data, keep_default_na=False)
    few = table[table["label"] == "synthetic"].groupby("split")["source_id"].first()
    table[(table["label"] == "real") | table["source_id"].isin(few)].to_csv(data, index=False)
    options, prepared, folds = prepare_folds(data)
    with pytest.raises(UserError, match=r"fold \d: .* both classes"):
        require_valid_folds(options, prepared, folds)


def test_the_hashes_of_the_given_val_split_are_kept(data: Path) -> None:
    options = DataOptions(data=str(data))
    val = prepare(options, seed=1).manifest.split("val").table
    moved = prepare(DataOptions(data=str(data), finetune=0.7), seed=1)
    assert moved.validation_hashes == set(val["sha256"])
    known = moved.manifest.split("train").table["sha256"].isin(moved.validation_hashes)
    assert 0 < known.sum() == len(val) - len(moved.manifest.split("val"))
    pd.read_csv(data, keep_default_na=False).assign(split="").to_csv(data, index=False)
    assert not prepare(options, seed=1).validation_hashes


def test_finetune_is_refused_in_cross_validation() -> None:
    with pytest.raises(UserError, match="--finetune: "):
        CvOptions.resolve({"finetune": 4})
    assert CvOptions.resolve({"recipe": "open"}).data.finetune == 0
    assert TrainOptions.resolve({"recipe": "open"}).data.finetune == 0.2

"""From options to data that are trained on: as a whole, and a fold of it."""

from pathlib import Path

import pandas as pd
import pytest
from synthdetect.commands.cv import fold_data, refit_data, require_trainable

from synthdetect.datasets.folds import assign
from synthdetect.datasets.prepare import Prepared, prepare, prepare_whole
from synthdetect.datasets.target import find_target
from synthdetect.runs.options import CvOptions, TrainOptions
from synthdetect.system.errors import UserError


@pytest.fixture
def extra(small_table: pd.DataFrame, tmp_path: Path) -> Path:
    """A supplement: the test's images of one generator, which are no longer in the data."""
    rows = small_table[small_table["split"] == "test"]
    file = tmp_path / "extra.csv"
    rows[rows["generator"] == rows["generator"].max()].to_csv(file, index=False)
    return file


@pytest.fixture
def data(small_table: pd.DataFrame, tmp_path: Path) -> Path:
    file = tmp_path / "labelled.csv"
    small_table[small_table["split"].isin(["train", "val"])].to_csv(file, index=False)
    return file


def of_cv(data: Path, **given: object) -> tuple[CvOptions, Prepared, pd.DataFrame]:
    options = CvOptions.resolve({"data": str(data), "folds": 3, **given})
    prepared = prepare_whole(options, seed=1)
    return options, prepared, assign(prepared.manifest, options, seed=1)


def generators(table: pd.DataFrame) -> set[str]:
    return set(table["generator"]) - {""}


def test_a_fold_trains_on_what_is_asked_for_and_validates_on_everything(data: Path) -> None:
    asked = "realesrgan_x4plus"
    options, prepared, folds = of_cv(data, generators=asked)
    for fold in (1, 2, 3):
        part = fold_data(options, prepared, folds, fold).manifest
        assert generators(part.split("train").table) == {asked}
        assert generators(part.split("val").table) > {asked}
        assert set(part.split("val").table["path"]) == set(folds.loc[folds["fold"] == fold, "path"])
    assert generators(refit_data(options, prepared).manifest.split("train").table) == {asked}


def test_no_fold_trains_on_more_images_than_are_asked_for(data: Path) -> None:
    options, prepared, folds = of_cv(data, max_images=10)
    trained = [fold_data(options, prepared, folds, n).manifest.split("train") for n in (1, 2, 3)]
    assert [len(train) for train in trained] == [10, 10, 10]
    assert len(refit_data(options, prepared).manifest) == 10


def test_a_supplement_trains_in_every_fold_and_validates_in_none(data: Path, extra: Path) -> None:
    options, prepared, folds = of_cv(data, supplement=str(extra))
    added = set(pd.read_csv(extra)["generator"])
    assert len(folds) == len(pd.read_csv(data))
    for fold in (1, 2, 3):
        part = fold_data(options, prepared, folds, fold).manifest
        assert added <= generators(part.split("train").table)
        assert not added & generators(part.split("val").table)
        assert part.splits == ["train", "val"]
    assert added <= generators(refit_data(options, prepared).manifest.split("train").table)


def test_a_supplement_is_nothing_to_adapt_to(data: Path, extra: Path) -> None:
    _, prepared, _ = of_cv(data, supplement=str(extra))
    with pytest.raises(UserError, match="holds images of supplement"):
        find_target("split:supplement", prepared.manifest, on_bad_image="stop")


def test_a_supplement_with_a_photograph_of_the_data_is_refused(data: Path, extra: Path) -> None:
    known, added = pd.read_csv(data), pd.read_csv(extra)
    val = known.loc[known["split"] == "val", "source_id"].iloc[0]
    added.assign(source_id=val).to_csv(extra, index=False)
    with pytest.raises(UserError, match="source in train or val and elsewhere"):
        prepare(TrainOptions.resolve({"data": str(data), "supplement": str(extra)}), seed=1)


def test_a_fold_without_one_class_is_refused_before_any_is_trained(data: Path) -> None:
    table = pd.read_csv(data, keep_default_na=False)
    few = table[table["label"] == "synthetic"].groupby("split")["source_id"].first()
    table[(table["label"] == "real") | table["source_id"].isin(few)].to_csv(data, index=False)
    options, prepared, folds = of_cv(data)
    with pytest.raises(UserError, match=r"fold \d: .* both classes are needed"):
        require_trainable(options, prepared, folds)


def test_what_the_data_call_validation_is_known(data: Path) -> None:
    options = TrainOptions.resolve({"data": str(data)})
    val = prepare(options, seed=1).manifest.split("val").table
    moved = prepare(TrainOptions.resolve({"data": str(data), "finetune": 0.7}), seed=1)
    assert moved.validation == set(val["sha256"])
    known = moved.manifest.split("train").table["sha256"].isin(moved.validation)
    assert 0 < known.sum() == len(val) - len(moved.manifest.split("val"))
    pd.read_csv(data, keep_default_na=False).assign(split="").to_csv(data, index=False)
    assert not prepare(options, seed=1).validation


def test_finetuning_is_refused_where_validation_images_are_dealt_out() -> None:
    with pytest.raises(UserError, match="--finetune: here the validation images are dealt"):
        CvOptions.resolve({"finetune": 4})
    assert CvOptions.resolve({"recipe": "open"}).finetune == 0
    assert TrainOptions.resolve({"recipe": "open"}).finetune == 0.2

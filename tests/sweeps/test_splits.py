"""The parts of a sweep share no photograph, and all folds have the same test split."""

from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from sweeps.splits import CONTROL, make_splits, write_target
from synthdetect.datasets.index import index
from synthdetect.datasets.manifest import Manifest, load
from synthdetect.datasets.options import DataOptions
from synthdetect.datasets.prepare import narrow
from synthdetect.datasets.schema import DEVELOPMENT_SPLITS
from synthdetect.datasets.selection import SUPPLEMENT
from synthdetect.system.errors import UserError

SHARES: dict[str, Any] = {"tuning_share": 0.4, "target_share": 0.25, "divisions": 1, "seed": 1}


@pytest.fixture(scope="module")
def manifest() -> Manifest:
    return index(load("sample"))


def sources(table: pd.DataFrame) -> set[str]:
    return set(table["source_id"])


def test_no_photograph_is_in_two_parts(manifest: Manifest) -> None:
    splits = make_splits(manifest, tuning_folds=2, folds=5, **SHARES)
    tuning, final = splits.tuning[0].table, splits.final[0][0].table
    test = final[final["split"] == "test"]
    labelled = final[final["split"].isin(DEVELOPMENT_SPLITS)]
    parts = [sources(tuning), sources(labelled), sources(test), sources(splits.target)]
    for i, one in enumerate(parts):
        assert one
        for other in parts[i + 1 :]:
            assert not one & other
    assert "test" not in set(tuning["split"])
    share = len(parts[0]) / (len(parts[0]) + len(parts[1]))
    assert share == pytest.approx(0.4, abs=0.05)


@pytest.mark.parametrize("folds", [1, 5])
def test_folds_have_their_own_validation_and_the_same_test(manifest: Manifest, folds: int) -> None:
    splits = make_splits(manifest, tuning_folds=folds, folds=folds, **SHARES)
    (final,) = splits.final
    assert len(splits.tuning) == len(final) == folds
    tests = [set(fold.split("test").table["path"]) for fold in final]
    assert all(paths == tests[0] for paths in tests)
    held_out = [sources(fold.split("val").table) for fold in final]
    for fold, validating in zip(final, held_out, strict=True):
        assert not validating & sources(fold.split("train").table)
    if folds > 1:
        table = final[0].table
        everything = sources(table[table["split"].isin(DEVELOPMENT_SPLITS)])
        assert set().union(*held_out) == everything
        assert sum(map(len, held_out)) == len(everything)


@pytest.mark.parametrize("folds", [1, 3])
def test_no_two_final_fits_have_the_same_training_images(manifest: Manifest, folds: int) -> None:
    splits = make_splits(manifest, tuning_folds=1, folds=folds, **{**SHARES, "divisions": 3})
    assert [len(division) for division in splits.final] == [folds] * 3
    trained = [frozenset(f.split("train").table["path"]) for d in splits.final for f in d]
    assert len(set(trained)) == len(trained)
    whole = {frozenset(f.table["path"]) for d in splits.final for f in d}
    assert len(whole) == 1, "all divide the same images"
    alone = make_splits(manifest, tuning_folds=1, folds=folds, **SHARES)
    assert alone.final[0][0].table.equals(splits.final[0][0].table)


def test_every_fold_trains_on_the_selected_images_and_the_supplement(manifest: Manifest) -> None:
    """Validation and test are not narrowed to the selected generators."""
    table = manifest.table
    control = table["split"] == "control"
    whole = manifest.with_table(table.assign(split=table["split"].mask(control, SUPPLEMENT)))
    options = DataOptions(generators=("realesrgan_x4plus",), supplement="given")
    splits = make_splits(
        whole,
        tuning_folds=2,
        folds=3,
        **SHARES,
        narrow=partial(narrow, options=options, seed=1),
    )
    added = set(whole.split(SUPPLEMENT).table["path"])
    for fold in (*splits.tuning, *splits.final[0]):
        assert SUPPLEMENT not in fold.splits
        train, val = fold.split("train").table, fold.split("val").table
        assert added < set(train["path"])
        assert set(train["generator"]) == {"", "realesrgan_x4plus"}
        assert set(val["generator"]) == {"", "realesrgan_x4plus", "realesr_animevideov3"}
    assert splits.seen == {"realesrgan_x4plus"}
    assert splits.parts["path"].is_unique
    assert set(splits.parts["split"]) == {"tuning", "final", "test", "target", SUPPLEMENT}
    assert len(splits.parts) == len(whole)


def test_controls_are_scored_unless_their_photograph_is_adapted_to(manifest: Manifest) -> None:
    splits = make_splits(manifest, tuning_folds=1, folds=2, **SHARES)
    fold = splits.final[0][0]
    assert CONTROL not in splits.tuning[0].splits
    controls = sources(fold.split(CONTROL).table)
    assert controls == sources(manifest.split(CONTROL).table) - sources(splits.target)
    assert controls & sources(fold.split("test").table)
    parts = splits.test_parts(fold.split("test").table, fold.split(CONTROL).table)
    beside = parts["control"]
    assert list(beside["label"].unique()) == [0, 1]
    assert set(beside.loc[beside["label"] == 1, "path"]) == set(fold.split(CONTROL).table["path"])


def test_synthetic_controls_are_refused(manifest: Manifest) -> None:
    table = manifest.table
    wrong = table.assign(split=table["split"].mask(table["generator"] == "realsr_df2k", CONTROL))
    with pytest.raises(UserError, match="the split control of a sweep is for real images"):
        make_splits(manifest.with_table(wrong), tuning_folds=1, folds=2, **SHARES)


def test_without_adaptation_the_whole_test_split_is_tested_on(manifest: Manifest) -> None:
    splits = make_splits(manifest, tuning_folds=1, folds=2, **{**SHARES, "target_share": 0})
    assert splits.target.empty
    assert len(splits.final[0][0].split("test")) == len(manifest.split("test"))


def test_the_generators_of_the_training_images_are_listed(manifest: Manifest) -> None:
    splits = make_splits(manifest, tuning_folds=1, folds=2, **SHARES)
    assert splits.seen == {"realesr_animevideov3", "realesrgan_x4plus"}


def test_splits_depend_on_the_seed_only(manifest: Manifest) -> None:
    one, two, other = (
        make_splits(manifest, tuning_folds=1, folds=3, **{**SHARES, "seed": seed})
        for seed in (1, 1, 2)
    )
    assert one.final[0][2].table.equals(two.final[0][2].table)
    assert sources(one.tuning[0].table) != sources(other.tuning[0].table)


def test_data_without_a_test_split_are_refused(manifest: Manifest) -> None:
    without = manifest.with_table(manifest.table[manifest.table["split"] != "test"])
    with pytest.raises(UserError, match="test split"):
        make_splits(without, tuning_folds=1, folds=2, **SHARES)


@pytest.mark.parametrize(
    ("folds", "option"),
    [({"tuning_folds": 1, "folds": 90}, " --folds 90"),
     ({"tuning_folds": 90, "folds": 2}, " --tuning-folds 90")],
)  # fmt: skip
def test_too_many_folds_are_refused(manifest: Manifest, folds: dict[str, Any], option: str) -> None:
    with pytest.raises(UserError, match=option):
        make_splits(manifest, **folds, **SHARES)


def test_the_images_to_adapt_to_are_listed_without_labels(
    manifest: Manifest, tmp_path: Path
) -> None:
    rows = manifest.split("test").table.head(3)
    write_target(rows, manifest, tmp_path / "deep" / "target.csv")
    listed = pd.read_csv(tmp_path / "deep" / "target.csv")
    assert list(listed.columns) == ["path"]
    assert all(Path(path).is_file() for path in listed["path"])

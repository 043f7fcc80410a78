"""Tuning, final training, target and test never share a photograph; every side gets the same."""

from functools import partial
from pathlib import Path

import pandas as pd
import pytest

from sweeps.splits import make_splits, write_target
from synthdetect.datasets.index import index
from synthdetect.datasets.manifest import Manifest, load
from synthdetect.datasets.options import DataOptions
from synthdetect.datasets.prepare import narrow
from synthdetect.datasets.selection import SUPPLEMENT
from synthdetect.system.errors import UserError

SHARES = {"tuning_share": 0.4, "target_share": 0.25, "seed": 1}


@pytest.fixture(scope="module")
def manifest() -> Manifest:
    return index(load("sample"))


def sources(table: pd.DataFrame) -> set[str]:
    return set(table["source_id"])


def test_no_photograph_plays_two_parts(manifest: Manifest) -> None:
    splits = make_splits(manifest, tuning_folds=2, folds=5, **SHARES)  # type: ignore[arg-type]
    tuning, final = splits.tuning[0].table, splits.final[0].table
    test = final[final["split"] == "test"]
    labelled = final[final["split"] != "test"]
    parts = [sources(tuning), sources(labelled), sources(test), sources(splits.target)]
    for i, one in enumerate(parts):
        assert one
        for other in parts[i + 1 :]:
            assert not one & other
    assert "test" not in set(tuning["split"])
    share = len(parts[0]) / (len(parts[0]) + len(parts[1]))
    assert share == pytest.approx(0.4, abs=0.05)


@pytest.mark.parametrize("folds", [1, 5])
def test_folds_validate_apart_and_test_alike(manifest: Manifest, folds: int) -> None:
    splits = make_splits(manifest, tuning_folds=folds, folds=folds, **SHARES)  # type: ignore[arg-type]
    assert len(splits.tuning) == len(splits.final) == folds
    tests = [set(m.split("test").table["path"]) for m in splits.final]
    assert all(paths == tests[0] for paths in tests)
    held_out = [sources(m.split("val").table) for m in splits.final]
    for manifest_of_fold, own in zip(splits.final, held_out, strict=True):
        assert not own & sources(manifest_of_fold.split("train").table)
    if folds > 1:
        everything = sources(splits.final[0].table[splits.final[0].table["split"] != "test"])
        assert set().union(*held_out) == everything
        assert sum(map(len, held_out)) == len(everything)


def test_every_fold_trains_on_what_is_asked_for_and_on_the_supplement(manifest: Manifest) -> None:
    """And validates, and is tested, on everything."""
    table = manifest.table
    control = table["split"] == "control"
    whole = manifest.with_table(table.assign(split=table["split"].mask(control, SUPPLEMENT)))
    options = DataOptions(generators=("realesrgan_x4plus",), supplement="given")
    splits = make_splits(
        whole,
        tuning_folds=2,
        folds=3,
        **SHARES,
        narrow=partial(narrow, options=options, seed=1),  # type: ignore[arg-type]
    )
    added = set(whole.split(SUPPLEMENT).table["path"])
    for fold in (*splits.tuning, *splits.final):
        assert SUPPLEMENT not in fold.splits
        train, val = fold.split("train").table, fold.split("val").table
        assert added < set(train["path"])
        assert set(train["generator"]) == {"", "realesrgan_x4plus"}
        assert set(val["generator"]) == {"", "realesrgan_x4plus", "realesr_animevideov3"}
    assert splits.seen == {"realesrgan_x4plus"}
    assert splits.parts["path"].is_unique
    assert set(splits.parts["split"]) == {"tuning", "final", "test", "target", SUPPLEMENT}
    assert len(splits.parts) == len(whole)


def test_without_adaptation_the_whole_test_judges(manifest: Manifest) -> None:
    splits = make_splits(manifest, tuning_folds=1, folds=2, **{**SHARES, "target_share": 0})  # type: ignore[arg-type]
    assert splits.target.empty
    assert len(splits.final[0].split("test")) == len(manifest.split("test"))


def test_the_generators_in_training_are_known(manifest: Manifest) -> None:
    splits = make_splits(manifest, tuning_folds=1, folds=2, **SHARES)  # type: ignore[arg-type]
    assert splits.seen == {"realesr_animevideov3", "realesrgan_x4plus"}


def test_the_same_seed_deals_alike_and_another_otherwise(manifest: Manifest) -> None:
    one, two, other = (
        make_splits(manifest, tuning_folds=1, folds=3, **{**SHARES, "seed": seed})  # type: ignore[arg-type]
        for seed in (1, 1, 2)
    )
    assert one.final[2].table.equals(two.final[2].table)
    assert sources(one.tuning[0].table) != sources(other.tuning[0].table)


def test_data_without_a_test_are_refused(manifest: Manifest) -> None:
    without = manifest.with_table(manifest.table[manifest.table["split"] != "test"])
    with pytest.raises(UserError, match="labelled test split"):
        make_splits(without, tuning_folds=1, folds=2, **SHARES)  # type: ignore[arg-type]


def test_too_many_folds_are_refused(manifest: Manifest) -> None:
    with pytest.raises(UserError, match="--folds 90"):
        make_splits(manifest, tuning_folds=1, folds=90, **SHARES)  # type: ignore[arg-type]


def test_the_target_is_listed_without_labels(manifest: Manifest, tmp_path: Path) -> None:
    rows = manifest.split("test").table.head(3)
    write_target(rows, manifest, tmp_path / "deep" / "target.csv")
    listed = pd.read_csv(tmp_path / "deep" / "target.csv")
    assert list(listed.columns) == ["path"]
    assert all(Path(path).is_file() for path in listed["path"])

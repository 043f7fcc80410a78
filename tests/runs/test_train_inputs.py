"""Tests that wrong options and data are reported before anything is trained, without a run."""

from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
from mlflow.tracking import MlflowClient

from synthdetect.cli import main

TINY = ["--arch=mobilenet_v3_large", "--image-size=32", "--weights=none", "--epochs=1",
        "--device=cpu"]  # fmt: skip


def runs() -> list[str]:
    return [run.info.status for run in MlflowClient().search_runs(["0"])]


def change(path: Path, edit: Callable[[pd.DataFrame], object]) -> None:
    table = pd.read_csv(path, keep_default_na=False)
    edit(table)
    table.to_csv(path, index=False)


def refused(manifest: Path, capsys: pytest.CaptureFixture[str], *options: str) -> str:
    assert main(["train", f"--data={manifest}", *TINY, *options]) == 2
    assert runs() == []
    message = capsys.readouterr().err
    assert "Traceback" not in message
    return message


def damaged(folder: Path, manifest: Path) -> Path:
    bad = folder / "bad.jpg"
    bad.write_bytes(b"\xff\xd8\xff\xe0 cut short")
    change(manifest, lambda table: table.__setitem__("path", [str(bad), *table["path"][1:]]))
    return bad


def test_an_unreadable_image_stops_the_run_by_name(
    workspace: Path, small_manifest: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bad = damaged(workspace, small_manifest)
    message = refused(small_manifest, capsys)
    assert str(bad) in message
    assert "1 of " in message
    assert "--on-bad-image exclude" in message


def test_excluded_images_are_listed_and_counted(
    workspace: Path, small_manifest: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bad = damaged(workspace, small_manifest)
    options = ["--on-bad-image=exclude", "--keep-last=false"]
    assert main(["train", f"--data={small_manifest}", *TINY, *options]) == 0
    (run,) = MlflowClient().search_runs(["0"])
    assert run.data.metrics["data/excluded"] == 1
    listed = MlflowClient().download_artifacts(run.info.run_id, "data/excluded.csv")
    assert pd.read_csv(listed)["path"].tolist() == [str(bad)]
    assert not MlflowClient().list_artifacts(run.info.run_id, "checkpoints")
    assert "1 unreadable image(s)" in capsys.readouterr().out


@pytest.mark.parametrize(
    "command",
    [
        ["train", "--per-category=8"],
        ["cv", "--folds=2", "--per-category=8"],
        ["sweep", "--strategies=sgd", "--trials=1", "--per-category=8", "--study=capped"],
    ],
    ids=lambda command: command[0],
)
def test_a_cap_on_data_without_categories_is_a_warning_before_the_training(
    workspace: Path, small_manifest: Path, capsys: pytest.CaptureFixture[str], command: list[str]
) -> None:
    change(small_manifest, lambda table: table.__setitem__("category", ""))
    given = [f"--data={small_manifest}", *TINY]
    # Nothing is trained: the weights are no file of this network.
    given[given.index("--weights=none")] = f"--weights={small_manifest}"
    assert main([command[0], *given, *command[1:]]) != 0
    text = " ".join(capsys.readouterr().out.split())
    warning = "takes the 80 training images without a category for one category, so that at most 8"
    assert warning in text
    assert "Give --per-category 0" in text
    (run,) = MlflowClient().search_runs(["0"], f"tags.`synthdetect.kind` = '{command[0]}'")
    assert warning in run.data.tags["synthdetect.left_out"]


def test_a_cap_that_leaves_nothing_out_is_no_warning(
    workspace: Path, small_manifest: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    change(small_manifest, lambda table: table.__setitem__("category", ""))
    given = [f"--data={small_manifest}", *TINY, "--recipe=constrained", "--keep-last=false"]
    assert main(["train", *given]) == 0
    assert "--per-category" not in capsys.readouterr().out


def test_a_source_on_both_sides_is_refused(
    workspace: Path, small_manifest: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    change(small_manifest, lambda table: table.__setitem__("source_id", "p000"))
    assert "cross the splits" in refused(small_manifest, capsys)


def test_one_content_with_both_labels_is_refused(
    workspace: Path, small_manifest: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = pd.read_csv(small_manifest, keep_default_na=False)
    train = table[table["split"] == "train"]
    real = train[train["label"] == "real"].iloc[0]
    copy = workspace / "copy.jpg"
    copy.write_bytes(Path(real["path"]).read_bytes())
    twin = {**real, "path": str(copy), "label": "synthetic", "generator": "copier"}
    pd.concat([table, pd.DataFrame([twin])]).to_csv(small_manifest, index=False)
    message = refused(small_manifest, capsys)
    assert "sha256" in message
    assert "other class" in message
    assert str(copy) in message


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--generators=sora"], "generators: sora not in the train split"),
        (["--categories=cars"], "categories: cars not in the train split"),
        (["--finetune=5000"], "finetune: 5000 of the"),
        (["--supplement=/nowhere"], "'/nowhere' is neither"),
        (["--weights=/nowhere.pt"], "--weights: '/nowhere.pt' is no file"),
        (["--device=cuda"], "--device: cuda is not available here"),
        (["--precision=fp16"], "--precision: fp16 does not train on a CPU"),
        (["--resume=0123"], "no run '0123'"),
        (["--adaptation=dann"], "--adaptation dann: give"),
        (["--adaptation=dann", "--target=/nowhere"], "--target: '/nowhere' is neither"),
        (["--adaptation=dann", "--target=split:val"], "--target split:val: holds images of val"),
        (["--arch=vit_b_16", "--image-size=40"], "--image-size: vit_b_16 needs a multiple of 16"),
    ],
)
def test_options_that_do_not_fit_are_refused(
    workspace: Path,
    small_manifest: Path,
    capsys: pytest.CaptureFixture[str],
    options: list[str],
    message: str,
) -> None:
    assert message in refused(small_manifest, capsys, *options)


def test_missing_data_are_refused(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "neither 'sample' nor a folder" in refused(Path("/nowhere"), capsys)

"""Tests that images a detector was adapted to are recorded, and reported in its tests."""

from pathlib import Path

import mlflow
import pandas as pd
import pytest

from synthdetect.cli import main
from synthdetect.report.held_out import _REPORTED_ONLY
from tests.conftest import artifact, newest

TINY = ["--arch=mobilenet_v3_large", "--image-size=32", "--batch-size=16", "--epochs=1",
        "--weights=none", "--target=split:test"]  # fmt: skip


@pytest.mark.parametrize("method", ["--adaptation=coral", "--semi-supervised=fixmatch"])
def test_report_and_evaluation_warn_of_test_images_that_were_adapted_to(
    method: str,
    workspace: Path,
    small_manifest: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["train", f"--data={small_manifest}", *TINY, method]) == 0
    trained = newest()
    target, images = (artifact(trained, f"data/{name}.csv") for name in ("target", "manifest"))
    test = images[images["split"] == "test"]
    assert target["sha256"].tolist() == test["sha256"].tolist()
    assert list(target) == ["path", "sha256"]
    assert main(["report", trained.info.run_id, "--output=page.html"]) == 0
    page = Path("page.html").read_text()
    assert "adapted to images of test without" in page
    assert _REPORTED_ONLY["train"] not in page

    pd.read_csv(small_manifest).query("split in ('test', 'control')").to_csv("two.csv", index=False)
    given = [f"--model={trained.info.run_id}", "--data=two.csv", "--explain=0", "--spectra=false"]
    capsys.readouterr()
    assert main(["evaluate", *given]) == 0
    facts = artifact(newest(), "evaluation/held_out.csv").set_index(["split", "fact"])
    count = f"{len(test)} of {len(test)} images"
    assert facts.loc[("test", "contents adapted to"), "value"] == count
    assert facts.loc[("test", "contents adapted to"), "warning"]
    assert not facts.loc[("control", "contents adapted to"), "warning"]
    assert f"test: contents adapted to: {count}" in capsys.readouterr().out


def test_a_training_with_a_teacher_logs_what_the_guard_did_and_keeps_its_method(
    workspace: Path, small_manifest: Path
) -> None:
    """Without a guard the second epoch is the first that uses the target, a folder of images."""
    images = pd.read_csv(small_manifest)
    Path("photos").mkdir()
    for path in images.query("split == 'test'")["path"]:
        file = small_manifest.parent / path
        (Path("photos") / file.name).write_bytes(file.read_bytes())
    images[images["split"].isin(["train", "val"])].to_csv(small_manifest, index=False)
    given = ["--epochs=2", "--semi-supervised=mean_teacher", "--target=photos",
             "--guard-precision=0"]  # fmt: skip
    assert main(["train", f"--data={small_manifest}", *TINY, *given]) == 0
    run = newest()
    assert run.data.params["semi_supervised.semi_supervised"] == "mean_teacher"
    history = mlflow.MlflowClient().get_metric_history
    used = {m.step: m.value for m in history(run.info.run_id, "unlabelled/used")}
    assert used == {1: 0.0, 2: 1.0}
    assert len(history(run.info.run_id, "val/pseudo_label_precision")) == 2
    assert len(history(run.info.run_id, "unlabelled/synthetic")) == 1

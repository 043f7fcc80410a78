"""Tests that images a detector was adapted to are recorded, and reported in its tests."""

from pathlib import Path

import mlflow
import pandas as pd
import pytest
from mlflow.entities import Run

from synthdetect.cli import main
from synthdetect.report.held_out import _REPORTED_ONLY
from synthdetect.tracking import evaluation
from tests.conftest import artifact

TINY = ["--arch=mobilenet_v3_large", "--image-size=32", "--batch-size=16", "--epochs=1",
        "--weights=none", "--adaptation=coral", "--target=split:test"]  # fmt: skip


def newest() -> Run:
    return mlflow.search_runs(output_format="list")[0]


def test_report_and_evaluation_warn_of_test_images_that_were_adapted_to(
    workspace: Path,
    small_manifest: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(evaluation, "draw", lambda *details: ())
    assert main(["train", f"--data={small_manifest}", *TINY]) == 0
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

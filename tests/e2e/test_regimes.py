"""The paper's regimes through `mlflow run`: killed, damaged, mended, and its report."""

import signal
import time

import mlflow
import pandas as pd
import pytest
from mlflow.entities import Run

from tests.e2e.conftest import Platform, end

OPTIONS = {"image_size": "32", "batch_size": "16", "weights": "none", "epochs": "2",
           "narrow_per_category": "8", "refit": "false"}  # fmt: skip


def children(platform: Platform, parent: Run) -> dict[str, Run]:
    query = f"tags.`mlflow.parentRunId` = '{parent.info.run_id}'"
    runs = platform.client().search_runs(["0"], query)
    return {run.data.tags["synthdetect.fold"]: run for run in runs}


@pytest.mark.long
def test_killed_damaged_mended_and_finished(platform: Platform) -> None:
    given = [f"-P{name}={value}" for name, value in {**OPTIONS, "data": platform.data}.items()]
    command = ["mlflow", "run", ".", "-e", "regimes", "--env-manager", "local", *given]
    process = platform.start(*command)
    platform.wait_for(process, "open\n")
    while platform.output().count("epoch   1/2") < 2:
        assert process.poll() is None, platform.output()
        time.sleep(0.02)
    end(process, signal.SIGKILL)
    parent = platform.latest(synthdetect__kind="regimes")
    before = children(platform, parent)
    assert before["constrained"].info.status == "FINISHED"
    (last,) = (platform.folder / "runs" / before["open"].info.run_id).glob("last.safetensors")
    whole = last.read_bytes()

    # The open regime's checkpoint is damaged: it fails, and with it the study.
    last.write_bytes(whole[:1000])
    again = [*command, f"-Presume={parent.info.run_id}"]
    assert platform.run(*again) == 1
    assert "1 of 2 trainings failed: open: UserError:" in platform.output()
    assert "constrained  is done" in platform.output()
    assert platform.client().get_run(parent.info.run_id).info.status == "FAILED"

    # Mended, only the open regime is finished.
    last.write_bytes(whole)
    assert platform.run(*again) == 0, platform.output()
    after, client = children(platform, parent), platform.client()
    assert client.get_run(parent.info.run_id).info.status == "FINISHED"
    assert after["constrained"].info.end_time == before["constrained"].info.end_time
    steps = [m.step for m in client.get_metric_history(after["open"].info.run_id, "val/auc")]
    assert steps == [1, 2]
    tables = mlflow.artifacts.download_artifacts(
        run_id=parent.info.run_id, artifact_path="regimes/tables.csv"
    )
    assert set(pd.read_csv(tables)["regime"]) == {
        "constrained (resnet18)", "open (resnet50)", "difference",
    }  # fmt: skip
    page = platform.folder / "mlruns/0" / parent.info.run_id / "artifacts/report.html"
    for text in ("Comparison of regimes", "The paper&#39;s tables", "constrained"):
        assert text in page.read_text()

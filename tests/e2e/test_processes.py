"""Training in processes that `synthdetect train` starts: as in one, and truthful if one dies."""

import contextlib
import json
import os
import signal
import time
from pathlib import Path
from typing import Any

import mlflow
import psutil
import pytest
from mlflow.entities import Run

from tests.e2e.conftest import Platform

DIVIDED = {"shards": "2", "epochs": "4", "average": "ema"}


def results(platform: Platform, run: Run) -> dict[str, Any]:
    """Every metric over the epochs, and the predictions; without what depends on time."""
    client = platform.client()
    found: dict[str, Any] = {
        name: [(p.step, p.value) for p in client.get_metric_history(run.info.run_id, name)]
        for name in run.data.metrics
        if not name.startswith("system/") and "images_per_second" not in name
    }
    for split in ("val", "test", "control"):
        file = mlflow.artifacts.download_artifacts(
            run_id=run.info.run_id, artifact_path=f"predictions/{split}.csv"
        )
        found[split] = Path(file).read_text()
    return found


@pytest.fixture(scope="module")
def alone(platform: Platform) -> dict[str, Any]:
    """What one process makes of both parts of every batch."""
    assert platform.run(*platform.direct("train", **DIVIDED)) == 0, platform.output()
    run = platform.latest()
    assert run.data.params["device.processes"] == "1"
    return results(platform, run)


@pytest.mark.long
def test_two_processes_train_the_same_detector_in_one_run(
    platform: Platform, alone: dict[str, Any]
) -> None:
    before = len(platform.client().search_runs(["0"]))
    status = platform.run(*platform.project("train", processes="2", **DIVIDED))
    assert status == 0, platform.output()
    assert len(platform.client().search_runs(["0"])) == before + 1
    run = platform.latest()
    assert run.info.status == "FINISHED"
    assert results(platform, run) == alone
    assert all(run.data.metrics[f"process_{n}/images_per_second"] > 0 for n in range(2))
    file = mlflow.artifacts.download_artifacts(
        run_id=run.info.run_id, artifact_path="processes.json"
    )
    facts = json.loads(Path(file).read_text())["processes"]
    assert [one["kind"] for one in facts] == ["cpu", "cpu"]


@pytest.mark.long
def test_a_killed_process_ends_the_command_and_one_process_goes_on(
    platform: Platform, alone: dict[str, Any]
) -> None:
    command = platform.start(*platform.direct("train", processes="2", **DIVIDED))
    follower = _follower(psutil.Process(command.pid))
    platform.wait_for(command, "epoch   1/4")
    follower.send_signal(signal.SIGKILL)
    assert command.wait(timeout=60) == 1
    run = platform.latest()
    assert run.info.status == "FAILED"
    assert "process 1, beside process 0, ended with signal 9" in platform.output()
    assert "signal 9" in run.data.tags["synthdetect.error"]
    resumed = platform.direct("train", resume=run.info.run_id)
    assert platform.run(*resumed) == 0, platform.output()
    run = platform.client().get_run(run.info.run_id)
    assert run.info.status == "FINISHED"
    assert results(platform, run) == alone


@pytest.mark.long
def test_the_others_end_with_the_first(platform: Platform) -> None:
    command = platform.start(*platform.direct("train", processes="2", **DIVIDED))
    follower = _follower(psutil.Process(command.pid))
    os.kill(command.pid, signal.SIGKILL)
    command.wait(timeout=60)
    follower.wait(timeout=60)


def _follower(first: psutil.Process) -> psutil.Process:
    """The process that another one has started to train beside it."""
    end = time.monotonic() + 120
    while time.monotonic() < end:
        for child in first.children():
            with contextlib.suppress(psutil.NoSuchProcess):  # one that has ended
                if "synthdetect.runs.processes" in child.cmdline():
                    return child
        time.sleep(0.05)
    raise AssertionError("no process was started")

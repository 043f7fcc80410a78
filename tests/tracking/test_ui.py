"""A run is easy to find in MLflow's UI: its name, its experiment, its address, its saved views."""

import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from mlflow.entities import Run as MlflowRun
from mlflow.tracking import MlflowClient
from mlflow.utils.name_utils import _generate_random_name

from synthdetect.cli import main
from synthdetect.system.errors import UserError
from synthdetect.tracking import addresses
from synthdetect.tracking.load import ProcessMonitor
from synthdetect.tracking.opening import open_run
from synthdetect.tracking.options import BY_KIND, TrackingOptions
from synthdetect.tracking.views import ALL, View


def project_run(monkeypatch: pytest.MonkeyPatch, name: str) -> str:
    """A run as `mlflow run` makes it beforehand."""
    run = MlflowClient().create_run(
        "0", run_name=name, tags={"mlflow.source.type": "PROJECT"}
    ).info.run_id  # fmt: skip
    monkeypatch.setenv("MLFLOW_RUN_ID", run)
    return str(run)


def entity(run_id: str) -> MlflowRun:
    return MlflowClient().get_run(run_id)


def saved_view(key: str, experiment: str = "0") -> dict[str, Any]:
    tags = MlflowClient().get_experiment(experiment).tags
    view: dict[str, Any] = json.loads(tags[f"mlflow.sharedViewState.{key}"])
    return {**view, "state": json.loads(view["state"])}


def test_a_run_of_mlflow_run_is_named_after_what_it_is_unless_its_user_named_it(
    workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for given, wanted, named in (
        (_generate_random_name(), "", "resnet18 constrained"),
        ("my run", "", "my run"),
        ("three-word-name", "", "three-word-name"),
        ("my run", "mine", "mine"),
    ):
        project_run(monkeypatch, given)
        tracking = TrackingOptions(run_name=wanted)
        with open_run("resnet18 constrained", kind="train", tags={}, tracking=tracking) as run:
            pass
        assert entity(run.id).info.run_name == named


def test_each_kind_of_work_has_an_experiment_of_its_own_if_that_is_asked_for(
    workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    by_kind = TrackingOptions(experiment=BY_KIND)
    with (
        open_run("a", kind="cv", tags={}, tracking=by_kind) as parent,
        open_run("b", kind="fold", tags={}, parent=parent) as child,
    ):
        pass
    with open_run("c", kind="cv", tags={}, tracking=by_kind) as again:
        pass
    with open_run("d", kind="train", tags={}, tracking=TrackingOptions(experiment="x y")) as other:
        pass
    client = MlflowClient()
    names = [
        client.get_experiment(entity(run.id).info.experiment_id).name
        for run in (parent, child, again, other)
    ]
    assert names == ["synthdetect cv", "synthdetect cv", "synthdetect cv", "x y"]
    left = project_run(monkeypatch, _generate_random_name())
    with open_run("e", kind="cv", tags={}, tracking=by_kind) as moved:
        pass
    assert client.get_experiment(entity(moved.id).info.experiment_id).name == "synthdetect cv"
    assert moved.id in entity(left).data.tags["mlflow.note.content"]
    client.delete_experiment(entity(other.id).info.experiment_id)
    gone = TrackingOptions(experiment="x y")
    with (
        pytest.raises(UserError, match=r"--experiment: 'x y'.*deleted"),
        open_run("f", kind="train", tags={}, tracking=gone),
    ):
        pass


def test_a_study_saves_a_view_of_its_runs_and_prints_where_it_is(
    workspace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    view = View(("metrics.best/val/auc", "tags.synthdetect.fold"), "metrics.best/val/auc")
    with open_run("cv resnet18", kind="cv", tags={}, view=view) as run:
        pass
    run.print_pages()
    printed = capsys.readouterr().out
    page = f"http://127.0.0.1:5000/#/experiments/0/runs/{run.id}?workflowType=machine_learning"
    assert printed.count(page) == 2  # as it starts and as it ends
    assert addresses.runs_page("0", run.id) in printed
    found = saved_view(run.id)
    assert found["name"] == "cv resnet18"
    assert found["state"] == {
        "searchFilter": f"tags.`mlflow.parentRunId` = '{run.id}'",
        "orderByKey": "metrics.`best/val/auc`",
        "orderByAsc": False,
        "selectedColumns": ["metrics.`best/val/auc`", "tags.`synthdetect.fold`"],
    }
    assert saved_view(ALL)["state"]["orderByKey"] == "attributes.start_time"
    assert all(isinstance(found[name], int) for name in ("createdAt", "updatedAt"))


def test_addresses_of_a_server_are_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mlflow.get_tracking_uri", lambda: "https://me:secret@host/mlflow/")
    assert addresses.run_page("3", "ab").startswith("https://***@host/mlflow/#/experiments/3/runs")
    assert "secret" not in addresses.run_page("3", "ab")


def test_the_load_of_processes_covers_those_that_this_one_started() -> None:
    busy = "import sys; print(1, flush=True)\nwhile True: pass"
    monitor = ProcessMonitor()
    monitor.collect_metrics()
    before = monitor.aggregate_metrics()
    monitor.clear_metrics()
    child = subprocess.Popen([sys.executable, "-c", busy], stdout=subprocess.PIPE)
    try:
        assert child.stdout
        child.stdout.readline()
        time.sleep(0.5)
        monitor.collect_metrics()
    finally:
        child.kill()
        child.wait()
    after = monitor.aggregate_metrics()
    assert after["processes/count"] == before["processes/count"] + 1
    assert after["processes/memory_megabytes"] > before["processes/memory_megabytes"]
    assert after["processes/cpu_percent"] > 5


def test_system_metrics_can_be_switched_off() -> None:
    code = "from synthdetect.tracking import opening; print(opening._SYSTEM_METRICS)"
    for value, expected in (("false", "False"), ("true", "True")):
        found = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True,
            env={**os.environ, "MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING": value},
        )  # fmt: skip
        assert found.stdout.strip() == expected


def test_ui_refuses_what_is_not_there_and_a_port_in_use(
    workspace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["ui", "nosuch", "--no-browser"]) == 2
    assert "no run 'nosuch'" in capsys.readouterr().err
    assert main(["ui", "--experiment", "nosuch", "--no-browser"]) == 2
    assert "no 'nosuch'" in capsys.readouterr().err
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        assert main(["ui", "--port", port, "--no-browser"]) == 2
    assert f"--port {port}: not free" in capsys.readouterr().err

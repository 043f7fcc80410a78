"""A sweep on several hosts with PostgreSQL, all of which lose power; others take up their work."""

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import mlflow
import optuna
import pandas as pd
import pytest
import yaml
from mlflow.tracking import MlflowClient
from optuna.trial import TrialState

from sweeps import tuning
from sweeps.storage import GRACE, open_storage
from tests.conftest import ROOT
from tests.deploy.compose import DEPLOY
from tests.deploy.conftest import PASSWORD, SECRETS, Team
from tests.deploy.postgres import program

pytestmark = pytest.mark.long

EPOCHS = 2
OPTIONS = {
    "strategies": "focal", "trials": "2", "folds": "2", "seeds": "1", "prune": "false",
    "epochs": str(EPOCHS), "arch": "mobilenet_v3_large", "image_size": "32", "batch_size": "16",
    "weights": "none", "lr": "1e-3", "device": "cpu", "workers": "0", "study": "many",
}  # fmt: skip
MEASURED = ("seconds", "mib", "memory", "criteria", "because", "confirmed")
"""Words in the columns that depend on the time and the memory that trainings took."""


def manifest() -> dict[str, Any]:
    """The container of the Job."""
    job = yaml.safe_load((DEPLOY / "kubernetes.yaml").read_text())
    assert (job["kind"], job["spec"]["completionMode"]) == ("Job", "Indexed")
    (container,) = job["spec"]["template"]["spec"]["containers"]
    return dict(container)


def slurm_task(team: Team, number: int, name: str) -> tuple[Any, "subprocess.Popen[bytes]"]:
    """Start a task of the array on a new host; `srun` there runs what it is given, and no more."""
    host, folder = team.host(name)
    srun = folder / "bin" / "srun"
    srun.parent.mkdir()
    srun.write_text('#!/bin/sh\nexec "$@"\n')
    srun.chmod(0o755)
    environment = team.environment(host)
    environment |= {
        "PATH": f"{srun.parent}:{environment['PATH']}", "SLURM_ARRAY_TASK_ID": str(number),
        "SLURM_ARRAY_TASK_MIN": "0", "SLURM_SUBMIT_DIR": str(ROOT),
        "STORAGE": "postgresql://team@postgres/optuna",
    }  # fmt: skip
    given = {**OPTIONS, "data": str(team.data), "output": str(folder / "runs")}
    words = [word for name, value in given.items() for word in ("-P", f"{name}={value}")]
    return host, host.start(
        "bash", str(DEPLOY / "sweep.slurm"), *words,
        folder=folder, environment=environment, output=folder / "output.txt",
    )  # fmt: skip


def pod(team: Team, index: int, name: str) -> "subprocess.Popen[bytes]":
    """Start a pod of the Job on a new host, with the options of the test."""
    container = manifest()
    host, folder = team.host(name)
    plain = {one["name"]: one["value"] for one in container["env"] if "value" in one}
    environment = {
        **plain, **team.environment(host), "JOB_COMPLETION_INDEX": str(index),
        "STORAGE": plain["STORAGE"], "MLFLOW_TRACKING_URI": plain["MLFLOW_TRACKING_URI"],
        "DATA": str(team.data), "OPTIONS": " ".join(f"--{k}={v}" for k, v in OPTIONS.items()),
    }  # fmt: skip
    assert {one["name"] for one in container["env"]} <= set(environment)
    return host.start(
        *container["command"], *container["args"],
        folder=folder, environment=environment, output=folder / "output.txt",
    )  # fmt: skip


def studies(storage: Any) -> dict[str, optuna.Study]:
    found = optuna.get_all_study_names(storage)
    return {name: optuna.load_study(study_name=name, storage=storage) for name in found}


def running(storage: Any) -> list[optuna.trial.FrozenTrial]:
    """The trials that hosts work on, with a run."""
    return [
        trial
        for study in studies(storage).values()
        for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
        if tuning.RUN in trial.user_attrs
    ]


def host_of(trial: optuna.trial.FrozenTrial) -> str:
    return str(trial.user_attrs[tuning.PROCESS]).partition(" ")[0]


def test_a_sweep_goes_on_when_the_power_of_its_hosts_is_cut(team: Team, tmp_path: Path) -> None:
    by_itself = sweep_alone(team, tmp_path / "alone")
    storage = open_storage(team.postgres.local("optuna"))
    first = [slurm_task(team, number, name) for number, name in enumerate(("alpha", "beta"))]
    end = time.monotonic() + 1800
    while {host_of(trial) for trial in running(storage)} != {"alpha", "beta"}:
        for host, process in first:
            output = team.folder / host.name / "output.txt"
            assert process.poll() is None, output.read_text()
        assert time.monotonic() < end
        time.sleep(0.2)
    for host, process in first:
        host.cut_power()
        process.wait()
    left = running(storage)
    assert left, "trials stay RUNNING whose host is gone"

    pods = [pod(team, index, name) for index, name in enumerate(("gamma", "delta"))]
    for process, name in zip(pods, ("gamma", "delta"), strict=True):
        assert process.wait(timeout=1800) == 0, (team.folder / name / "output.txt").read_text()

    # What a host had left was given up when its heartbeat had been missing for long, not before.
    beats = dict(
        team.postgres.execute("select trial_id, heartbeat from trial_heartbeats", "optuna")
    )
    found = studies(storage)
    ended = {t._trial_id: t for study in found.values() for t in study.trials}
    for trial in left:
        waited = ended[trial._trial_id].datetime_complete - beats[trial._trial_id]
        assert ended[trial._trial_id].state == TrialState.FAIL
        assert waited.total_seconds() >= GRACE

    # No trial was run twice, and each epoch was logged once.
    client = team.client()
    by_name = {name: [t for t in tuning.settled(study) if tuning.RUN in t.user_attrs]
               for name, study in found.items()}  # fmt: skip
    # Processes that begin a side's last trial at the same moment try one more than was asked for.
    assert len(by_name["many/finals"]) == 4
    assert all(len(by_name[f"many/{side}"]) >= 2 for side in ("baseline", "focal"))
    whole = [trial for trials in by_name.values() for trial in trials]
    assert {trial.state for trial in whole} == {TrialState.COMPLETE}
    assert len({trial.user_attrs[tuning.RUN] for trial in whole}) == len(whole)
    assert {host_of(trial) for trial in whole} >= {"gamma", "delta"}
    for trial in whole:
        history = client.get_metric_history(trial.user_attrs[tuning.RUN], "val/auc")
        assert [point.step for point in history] == list(range(1, EPOCHS + 1))
    runs = client.search_runs(["0"], "tags.`synthdetect.study` = 'many'")
    assert {run.info.status for run in runs} == {"FINISHED"}
    assert len(runs) == len(whole) + 1
    (sweep,) = (run for run in runs if run.data.tags["synthdetect.kind"] == "sweep")

    require_no_secrets(team, client, sweep.info.run_id, tmp_path / "artifacts")
    alone = tmp_path / "alone"
    assert by_itself.wait(timeout=1800) == 0, (alone / "output.txt").read_text()
    require_same_results(client, sweep.info.run_id, by_name, tmp_path / "compared", alone)


def require_no_secrets(team: Team, client: MlflowClient, run_id: str, folder: Path) -> None:
    """No password is printed, or in the databases or the artifacts."""
    texts = [file.read_bytes() for file in team.folder.rglob("output.txt")]
    for database in ("mlflow", "optuna"):
        texts.append(subprocess.run(
            [program("pg_dump"), f"--host={team.postgres.folder}", f"--port={team.postgres.port}",
             f"--username={team.postgres.user}", database],
            check=True, stdout=subprocess.PIPE,
        ).stdout)  # fmt: skip
    assert b"postgresql://***@postgres/optuna" in texts[-2], "the storage is a parameter"
    folder.mkdir()
    client.download_artifacts(run_id, "", str(folder))
    texts += [file.read_bytes() for file in folder.rglob("*") if file.is_file()]
    assert len(texts) > 10
    for secret in (SECRETS["POSTGRES_PASSWORD"], PASSWORD, SECRETS["S3_SECRET"]):
        assert not [text for text in texts if secret.encode() in text]


def sweep_alone(team: Team, alone: Path) -> "subprocess.Popen[bytes]":
    """Start the same sweep in one process with SQLite."""
    alone.mkdir()
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("MLFLOW_", "PG"))}
    environment |= {"MLFLOW_TRACKING_URI": f"sqlite:///{alone}/mlflow.db", "PYTHONPATH": str(ROOT),
                    "MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING": "false",
                    "SYNTHDETECT_CACHE": str(alone / "cache")}  # fmt: skip
    given = {**OPTIONS, "data": str(team.data)}
    with (alone / "output.txt").open("wb") as output:
        return subprocess.Popen(
            [sys.executable, "-m", "sweeps", "sweep", *(f"--{k}={v}" for k, v in given.items())],
            cwd=alone, env=environment, stdout=output, stderr=output,
        )  # fmt: skip


def require_same_results(
    client: MlflowClient, run_id: str, trials: dict[str, list[optuna.trial.FrozenTrial]],
    folder: Path, alone: Path,
) -> None:  # fmt: skip
    """The sweep by many has tried what that of one process tried, with the same verdicts."""
    for name, study in studies(f"sqlite:///{alone}/optuna.db").items():
        wanted = {str(trial.params) for trial in tuning.settled(study)}
        assert wanted <= {str(trial.params) for trial in trials[name]}
    local = MlflowClient(f"sqlite:///{alone}/mlflow.db")
    (other,) = local.search_runs(["0"], "tags.`synthdetect.kind` = 'sweep'")
    for path in ("sweep/verdicts.csv", "sweep/comparison.csv", "sweep/trainings.csv"):
        tables = []
        for source, one in ((client, run_id), (local, other.info.run_id)):
            mlflow.set_tracking_uri(source.tracking_uri)
            place = folder / one
            place.mkdir(parents=True, exist_ok=True)
            tables.append(pd.read_csv(source.download_artifacts(one, path, str(place))))
        kept = [name for name in tables[0] if not any(word in name for word in MEASURED)]
        assert {"verdict", "auc_unseen", "strategy"} & set(kept)
        pd.testing.assert_frame_equal(tables[0][kept], tables[1][kept], check_exact=True)
        assert len(tables[0]) == (4 if "trainings" in path else 1)

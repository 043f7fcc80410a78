"""Sweeps as real processes: killed in mid-trial, and shared by two."""

import signal
import subprocess

import optuna
import pytest
from mlflow.entities import Run
from optuna.trial import TrialState

from sweeps import tuning
from tests.e2e.conftest import Platform, end

OPTIONS = {"strategies": "focal", "epochs": "2", "trials": "2", "folds": "2", "seeds": "1"}


def studies(platform: Platform, name: str) -> list[optuna.Study]:
    storage = f"sqlite:///{platform.folder}/optuna.db"
    parts = (f"{name}/{part}" for part in ("baseline", "focal", "finals"))
    return [optuna.load_study(study_name=part, storage=storage) for part in parts]


def runs(platform: Platform, name: str) -> list[Run]:
    query = f"tags.`synthdetect.study` = '{name}'"
    return list(platform.client().search_runs(["0"], query))


def check(platform: Platform, name: str, finals: int = 4) -> None:
    """Nothing is left running, every trial has a run of its own, and each epoch is logged once."""
    client = platform.client()
    found = runs(platform, name)
    errors = {run.info.run_name: run.data.tags.get("synthdetect.error") for run in found}
    assert {run.info.status for run in found} == {"FINISHED"}, errors
    for study, count in zip(studies(platform, name), (2, 2, finals), strict=True):
        # A process that finds a queued fit taken is given an empty trial by Optuna instead.
        whole = [t for t in tuning.settled(study) if tuning.RUN in t.user_attrs]
        assert len(whole) >= count
        assert {trial.state for trial in whole} == {TrialState.COMPLETE}
        assert len({trial.user_attrs[tuning.RUN] for trial in whole}) == len(whole)
        for trial in whole:
            history = client.get_metric_history(trial.user_attrs[tuning.RUN], "val/auc")
            assert [point.step for point in history] == [1, 2]
    kinds = sorted(run.data.tags["synthdetect.kind"] for run in found)
    assert kinds.count("final") == finals
    assert kinds.count("sweep") == 1


@pytest.mark.long
def test_killed_in_mid_trial_and_started_again(platform: Platform) -> None:
    command = platform.direct("sweep", study="killed", prune="false", **OPTIONS)
    process = platform.start(*command)
    platform.wait_for(process, "focal trial 0")
    shown = platform.output().count("epoch   1/2")
    while platform.output().count("epoch   1/2") == shown:
        assert process.poll() is None, platform.output()
    end(process, signal.SIGKILL)
    assert "RUNNING" in {run.info.status for run in runs(platform, "killed")}
    assert platform.run(*command) == 0, platform.output()
    check(platform, "killed")
    focal = studies(platform, "killed")[1]
    states = [trial.state for trial in focal.trials]
    assert states == [TrialState.FAIL, TrialState.COMPLETE, TrialState.COMPLETE]
    first, again = focal.trials[:2]
    assert first.params == again.params
    assert first.user_attrs[tuning.RUN] == again.user_attrs[tuning.RUN]


@pytest.mark.long
def test_two_processes_share_a_study(platform: Platform) -> None:
    command = platform.direct("sweep", study="shared", prune="false", **{**OPTIONS, "seeds": "3"})
    leader = platform.start(*command)
    platform.wait_for(leader, "study shared")
    with (platform.folder / "worker.txt").open("w") as output:
        worker = subprocess.Popen(
            [*command, "--worker=true"], cwd=platform.folder, env=platform.environment,
            stdout=output, stderr=subprocess.STDOUT,
        )  # fmt: skip
    assert leader.wait(timeout=400) == 0, platform.output()
    assert worker.wait(timeout=60) == 0, (platform.folder / "worker.txt").read_text()
    check(platform, "shared", finals=12)
    processes = {
        trial.user_attrs[tuning.PROCESS]
        for study in studies(platform, "shared")
        for trial in tuning.settled(study)
    }
    assert len(processes) == 2

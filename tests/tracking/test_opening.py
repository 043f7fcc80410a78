"""A run is opened once, by one process, and ended with its true status."""

from pathlib import Path
from typing import Any

import mlflow
import pytest
import requests
from mlflow.entities import Run as MlflowRun
from mlflow.tracking import MlflowClient

from synthdetect.system.errors import UserError
from synthdetect.tracking import availability, opening
from synthdetect.tracking.availability import PATIENCE, StoreAway
from synthdetect.tracking.opening import Stopped, end, open_run
from synthdetect.tracking.run import Run
from synthdetect.tracking.tags import KIND, PROCESS


def runs() -> list[MlflowRun]:
    return list(MlflowClient().search_runs(["0"]))


def made(status: str = "RUNNING", **tags: str) -> str:
    client = MlflowClient()
    run = client.create_run("0", tags={name.replace("__", "."): v for name, v in tags.items()})
    if status != "RUNNING":
        client.set_terminated(run.info.run_id, status)
    return str(run.info.run_id)


def status_of(run_id: str) -> str:
    return str(MlflowClient().get_run(run_id).info.status)


def test_an_interrupt_right_after_the_start_ends_the_run_as_killed(
    workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(run: Run) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(opening, "_show_as_model_training", interrupt)
    with pytest.raises(KeyboardInterrupt), open_run("r", kind="test", tags={}):
        pass
    assert mlflow.active_run() is None
    assert [run.info.status for run in runs()] == ["KILLED"]


def test_an_interrupt_between_the_start_and_its_answer_ends_the_run_as_killed(
    workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    start = opening._Opening._start

    def interrupted(attempt: opening._Opening) -> object:
        start(attempt)
        raise KeyboardInterrupt

    monkeypatch.setattr(opening._Opening, "_start", interrupted)
    with pytest.raises(KeyboardInterrupt), open_run("r", kind="test", tags={}):
        pass
    assert mlflow.active_run() is None
    assert [run.info.status for run in runs()] == ["KILLED"]


def test_an_interrupt_before_mlflow_knows_the_run_ends_it_as_killed_and_not_its_parent(
    workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(attempt: opening._Opening) -> object:
        MlflowClient().create_run("0", tags=attempt._options["tags"])
        raise KeyboardInterrupt

    with open_run("parent", kind="test", tags={}) as parent:
        monkeypatch.setattr(opening._Opening, "_start", interrupted)
        with (
            pytest.raises(KeyboardInterrupt),
            open_run("child", kind="fold", tags={}, parent=parent),
        ):
            pass
        assert status_of(parent.id) == "RUNNING"
    assert sorted(run.info.status for run in runs()) == ["FINISHED", "KILLED"]
    assert status_of(parent.id) == "FINISHED"


def test_a_run_ends_itself_and_what_was_left_open_inside_and_nothing_else(workspace: Path) -> None:
    with open_run("parent", kind="test", tags={}) as parent:
        with open_run("child", kind="fold", tags={}, parent=parent) as child:
            left = mlflow.start_run(nested=True).info.run_id
        assert [status_of(run) for run in (parent.id, child.id, left)] == [
            "RUNNING", "FINISHED", "FINISHED"
        ]  # fmt: skip
        end(child, "KILLED")
        assert (status_of(parent.id), status_of(child.id)) == ("RUNNING", "KILLED")
        active = mlflow.active_run()
        assert active
        assert active.info.run_id == parent.id
    assert mlflow.active_run() is None


def test_a_child_run_whose_opening_is_attempted_twice_is_made_once(workspace: Path) -> None:
    with open_run("parent", kind="test", tags={}) as parent:
        attempt = opening._Opening("child", {KIND: "fold"}, "", parent)
        first = attempt.start()
        mlflow.end_run()  # the answer was lost
        assert attempt.start() == first
        mlflow.end_run()
        other = opening._Opening("child", {KIND: "fold"}, "", parent)
        assert other.start() != first
        mlflow.end_run()
    assert len(runs()) == 3


def test_what_waits_for_the_end_of_a_run_is_done_only_if_it_finishes(workspace: Path) -> None:
    seen: list[str] = []
    with open_run("good", kind="test", tags={}) as good:
        good.when_finished.append(lambda: seen.append(status_of(good.id)))
    assert seen == ["FINISHED"]

    def fail() -> None:
        with open_run("bad", kind="test", tags={}) as bad:
            bad.when_finished.append(lambda: seen.append("bad"))
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert seen == ["FINISHED"]


def refusing(monkeypatch: pytest.MonkeyPatch, method: str, times: int) -> None:
    """Let the first calls of a method of `MlflowClient` fail as if the store were away."""
    original, left = getattr(MlflowClient, method), times

    def refuse(self: MlflowClient, *arguments: Any, **options: Any) -> Any:
        nonlocal left
        left -= 1
        if left >= 0:
            raise requests.ConnectionError("refused")
        return original(self, *arguments, **options)

    monkeypatch.setattr(MlflowClient, method, refuse)
    monkeypatch.setattr(availability, "PAUSE", 0.0)


def run_that_cannot_be_ended(
    monkeypatch: pytest.MonkeyPatch, times: int, error: BaseException | None = None
) -> None:
    """Open a run and end it, with or without an error; the first attempts to end it fail."""
    with open_run("r", kind="train", tags={}) as run:
        run.end_tags["a"] = "b"
        run.when_finished.append(lambda: run.set_tags({"when": "finished"}))
        refusing(monkeypatch, "set_terminated", times)
        if error:
            raise error


@pytest.mark.parametrize(("error", "wanted"), [(RuntimeError, "FAILED"), (Stopped, "KILLED")])
def test_the_end_of_a_run_waits_for_the_store(
    workspace: Path, monkeypatch: pytest.MonkeyPatch, error: type[Exception], wanted: str
) -> None:
    run_that_cannot_be_ended(monkeypatch, 3)
    with pytest.raises(error):
        run_that_cannot_be_ended(monkeypatch, 3, error())
    failed, finished = runs()
    assert (failed.info.status, finished.info.status) == (wanted, "FINISHED")
    assert failed.data.tags["a"] == finished.data.tags["a"] == "b"
    assert ("when" in failed.data.tags, "when" in finished.data.tags) == (False, True)


def test_a_run_that_cannot_be_ended_stays_running(
    workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(PATIENCE, "0")
    with pytest.raises(StoreAway, match=r"refused.*--resume"):
        run_that_cannot_be_ended(monkeypatch, 2)
    (run,) = runs()
    assert run.info.status == "RUNNING"
    assert "when" not in run.data.tags
    assert mlflow.active_run() is None  # else MLflow ends it as FINISHED when the process exits


def test_an_interrupt_waits_for_no_store(
    workspace: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(KeyboardInterrupt):
        run_that_cannot_be_ended(monkeypatch, 1, KeyboardInterrupt())
    (run,) = runs()
    assert run.info.status == "RUNNING"
    assert mlflow.active_run() is None
    said = capsys.readouterr().out
    assert run.info.run_id in said
    assert "KILLED" in said


def test_a_run_is_opened_once_the_store_is_back(
    workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project_run = made()
    monkeypatch.setenv("MLFLOW_RUN_ID", project_run)
    refusing(monkeypatch, "get_run", 2)
    with open_run("r", kind="test", tags={}) as run:
        assert run.id == project_run
    refusing(monkeypatch, "create_run", 2)
    with open_run("r", kind="test", tags={}):
        pass
    assert len(runs()) == 2


def test_runs_that_killed_processes_of_this_machine_left_running_are_ended(
    workspace: Path, alive: str, dead: str
) -> None:
    left = [made(**{KIND: kind, PROCESS: dead}) for kind in ("evaluate", "cv", "fold")]
    elsewhere = f"elsewhere {dead.split(' ', 1)[1]}"
    others = [
        made(**{KIND: "evaluate"}),
        *(made(**{KIND: "evaluate", PROCESS: process}) for process in (alive, elsewhere)),
    ]
    with open_run("r", kind="evaluate", tags={}) as run:
        assert [status_of(one) for one in left] == ["KILLED"] * 3
        assert [status_of(other) for other in (*others, run.id)] == ["RUNNING"] * 4


def test_a_run_that_another_process_works_on_is_not_resumed(
    workspace: Path, alive: str, dead: str
) -> None:
    taken, free = made(**{KIND: "train", PROCESS: alive}), made(**{PROCESS: dead})
    with (
        pytest.raises(UserError, match=alive.split(" ")[1]),
        open_run("r", kind="train", tags={}, resume=taken),
    ):
        pass
    assert status_of(taken) == "RUNNING"
    with open_run("r", kind="train", tags={}, resume=free):
        assert MlflowClient().get_run(free).data.tags[PROCESS] != dead
    assert status_of(free) == "FINISHED"

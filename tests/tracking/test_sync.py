"""`synthdetect sync`: a run that cannot be seen to stops no other, and is not forgotten."""

from pathlib import Path

import pytest
from mlflow.tracking import MlflowClient

from synthdetect.cli import main
from synthdetect.tracking.outbox import Line, Outbox, waiting
from synthdetect.tracking.run import AWAITS_STORE, KIND, PROCESS, open_run


def kept(**tags: str) -> str:
    """A run of which something is kept."""
    run_id = str(MlflowClient().create_run("0", tags=tags).info.run_id)
    Outbox(run_id).keep(Line(params={"p": "1"}, tags={"t": "2"}))
    return run_id


def delivered(run_id: str) -> bool:
    return MlflowClient().get_run(run_id).data.params == {"p": "1"}


def test_a_deleted_run_is_told_and_the_others_get_theirs(
    workspace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    deleted, *others = sorted(kept() for _ in range(3))
    MlflowClient().delete_run(deleted)
    assert main(["sync"]) == 1
    assert all(map(delivered, others))
    assert list(waiting()) == [deleted]
    said = capsys.readouterr()
    assert f"run {deleted} is deleted" in said.out
    assert f"1 of 3 runs could not be seen to: {deleted}" in said.err
    MlflowClient().restore_run(deleted)
    assert main(["sync"]) == 0
    assert delivered(deleted)
    assert not waiting()


def test_a_run_of_a_living_process_is_left_alone(
    workspace: Path, capsys: pytest.CaptureFixture[str], alive: str, dead: str
) -> None:
    taken, free = kept(**{PROCESS: alive}), kept(**{PROCESS: dead})
    assert main(["sync"]) == 0
    assert (delivered(taken), delivered(free)) == (False, True)
    assert list(waiting()) == [taken]
    assert f"run {taken} is left alone" in capsys.readouterr().out


def test_a_training_that_cannot_go_on_is_not_forgotten_and_stops_no_other(
    workspace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    await_it = {AWAITS_STORE: "true"}
    broken = [kept(**{KIND: "train"}, **await_it) for _ in range(2)]
    folds = kept(**{KIND: "cv", "synthdetect.command": "synthdetect cv"}, **await_it)
    for _ in range(2):
        assert main(["sync"]) == 1
        said = capsys.readouterr().out
        for run_id in broken:
            assert f"run {run_id}: run {run_id} has no recorded configuration" in said
        assert f"run {folds} goes on with: synthdetect cv --resume={folds}" in said
        assert set(waiting()) == {*broken, folds}
        assert all(map(delivered, [*broken, folds]))
    with open_run("cv", kind="cv", tags={}, resume=folds):
        pass
    assert main(["sync"]) == 1
    assert set(waiting()) == set(broken)
    assert "goes on with" not in capsys.readouterr().out


def test_a_store_that_is_still_away_is_told(
    workspace: Path, capsys: pytest.CaptureFixture[str], away: str
) -> None:
    Outbox("0" * 32).keep(Line(params={"p": "1"}))
    assert main(["sync"]) == 1
    assert "is still away" in capsys.readouterr().err
    assert list(waiting()) == ["0" * 32]

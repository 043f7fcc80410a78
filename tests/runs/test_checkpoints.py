"""Checkpoints go to and come from a run so that the last one never stands without the best."""

from pathlib import Path

import mlflow
import pytest
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from synthdetect.runs import training
from synthdetect.runs.resume import fetch_checkpoint, read_config
from synthdetect.system.errors import UserError
from synthdetect.tracking.availability import StoreAway
from synthdetect.tracking.opening import open_run
from synthdetect.tracking.run import Run
from synthdetect.tracking.tags import CHECKPOINTS, KIND, NOT_BEGUN, PROCESS
from synthdetect.training.session import BEST, LAST


@pytest.fixture
def folder(workspace: Path) -> Path:
    """Of checkpoints."""
    made = workspace / "made"
    made.mkdir()
    for name in (BEST, LAST):
        (made / name).write_text(name)
    return made


def interrupted(run: Run, error: BaseException) -> None:
    """Have a training end in an error."""
    with training._saving_checkpoints(run, Path(run.id)):
        raise error


def test_an_interrupt_with_the_store_away_stays_an_interrupt(
    away: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder.rename(folder.with_name("0" * 32))
    with pytest.raises(KeyboardInterrupt):
        interrupted(Run("0" * 32), KeyboardInterrupt())
    assert capsys.readouterr().out.count(LAST) == 1
    assert (Path("0" * 32) / LAST).is_file()


def test_a_place_for_artifacts_that_takes_none_masks_no_error(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_id = MlflowClient().create_run("0").info.run_id
    place = Path(MlflowClient().get_run(run_id).info.artifact_uri)
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_text("no folder")
    folder.rename(folder.with_name(run_id))
    with pytest.raises(ZeroDivisionError):
        interrupted(Run(run_id), ZeroDivisionError())
    assert LAST in capsys.readouterr().out


def test_an_interrupted_training_leaves_its_checkpoints(folder: Path) -> None:
    run_id = MlflowClient().create_run("0").info.run_id
    folder.rename(folder.with_name(run_id))
    with pytest.raises(KeyboardInterrupt):
        interrupted(Run(run_id), KeyboardInterrupt())
    found = {item.path for item in MlflowClient().list_artifacts(run_id, CHECKPOINTS)}
    assert found == {f"{CHECKPOINTS}/{name}" for name in (BEST, LAST)}


def test_the_last_checkpoint_is_removed_first(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as killed:
        killed.setattr(
            "synthdetect.runs.training.shutil.rmtree", lambda *arguments, **options: None
        )
        training._remove(folder)
    assert [file.name for file in folder.iterdir()] == [BEST]
    training._remove(folder)
    assert not folder.exists()


def test_checkpoints_come_from_artifacts_the_last_one_last(folder: Path) -> None:
    with open_run("r", kind="train", tags={}) as run:
        for name in (LAST, BEST):
            run.log_file(folder / name, CHECKPOINTS)
        place = Path("runs") / run.id
        (place / BEST).mkdir(parents=True)  # which no file can take the place of
        with pytest.raises(OSError, match="directory"):
            fetch_checkpoint(run, "runs")
        assert [file.name for file in place.iterdir()] == [BEST]
        (place / BEST).rmdir()
        fetch_checkpoint(run, "runs")
    assert {file.name: file.read_text() for file in place.iterdir()} == {BEST: BEST, LAST: LAST}


def test_only_a_run_whose_process_is_gone_is_closed_for_having_no_record(
    workspace: Path, alive: str, dead: str
) -> None:
    client = MlflowClient()

    def begun_by(process: str) -> str:
        return str(client.create_run("0", tags={KIND: "train", PROCESS: process}).info.run_id)

    for process in (alive, "elsewhere 1 2.0"):
        run_id = begun_by(process)
        with pytest.raises(UserError, match="may be alive"):
            read_config(run_id)
        assert client.get_run(run_id).info.status == "RUNNING"
    run_id = begun_by(dead)
    for _ in range(2):
        with pytest.raises(UserError, match="before it had begun"):
            read_config(run_id)
    run = client.get_run(run_id)
    assert (run.info.status, run.data.tags[NOT_BEGUN]) == ("KILLED", "true")


def test_a_record_that_cannot_be_had_now_closes_no_run(away: str) -> None:
    with pytest.raises(StoreAway):
        read_config("0" * 32)


def test_a_record_that_cannot_be_read_closes_no_run(workspace: Path, dead: str) -> None:
    client = MlflowClient()
    run = client.create_run("0", tags={KIND: "train", PROCESS: dead})
    client.log_text(run.info.run_id, "{}", "config.json")
    file = Path(mlflow.artifacts.list_artifacts(run_id=run.info.run_id)[0].path)
    place = Path(run.info.artifact_uri) / file
    place.unlink()
    place.symlink_to(place)  # listed, and not to be read
    with pytest.raises((OSError, MlflowException)):
        read_config(run.info.run_id)
    assert client.get_run(run.info.run_id).info.status == "RUNNING"

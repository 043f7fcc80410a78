"""Tests of reports of runs in a store: collected from it, logged to it, harmless if they fail."""

import time
from collections.abc import Iterator
from pathlib import Path

import mlflow
import pytest
from mlflow.tracking import MlflowClient

from synthdetect.cli import main
from synthdetect.report.writing import ReportFailed, write_report
from tests.report.conftest import overall


@pytest.fixture(scope="module", autouse=True)
def store(module_path: Path) -> Iterator[Path]:
    """A working folder with an MLflow store."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(module_path)
        patch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{module_path}/mlflow.db")
        patch.delenv("MLFLOW_RUN_ID", raising=False)
        mlflow.set_tracking_uri(f"sqlite:///{module_path}/mlflow.db")
        yield module_path


def finished(**tags: str) -> str:
    """Id of a finished run with a table of results."""
    with mlflow.start_run(tags={"synthdetect.kind": "train", **tags}) as run:
        MlflowClient().log_text(run.info.run_id, overall().to_csv(), "evaluation/test.csv")
    return str(run.info.run_id)


def page(run_id: str) -> str:
    return Path(
        mlflow.artifacts.download_artifacts(run_id=run_id, artifact_path="report.html")
    ).read_text()


def test_a_report_is_logged_to_a_run_whose_status_and_end_stay_the_same(
    store: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_id = finished()
    before = MlflowClient().get_run(run_id).info
    assert main(["report", run_id, "--output", "pages/r.html"]) == 0
    after = MlflowClient().get_run(run_id).info
    assert (after.status, after.end_time) == ("FINISHED", before.end_time)
    assert "0.893 [0.843, 0.943]" in page(run_id)
    assert (store / "pages/r.html").read_text() == page(run_id)
    printed = capsys.readouterr().out
    assert f"{run_id}/artifacts/report.html" in printed
    assert "wrote pages/r.html" in printed


def test_writing_a_report_twice_gives_the_same_page() -> None:
    run_id = finished()
    write_report(run_id)
    first = page(run_id)
    write_report(run_id)
    assert page(run_id) == first


def test_a_missing_or_deleted_run_is_an_error(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["report", "nosuch"]) == 2
    assert "no run 'nosuch'" in capsys.readouterr().err
    run_id = finished()
    MlflowClient().delete_run(run_id)
    assert main(["report", run_id]) == 2
    assert "restore it" in capsys.readouterr().err


def test_a_report_that_fails_names_the_command_and_leaves_the_run_finished() -> None:
    run_id = finished()
    MlflowClient().log_text(run_id, "", "report.html/is a folder.txt")
    with pytest.raises(ReportFailed, match=f"synthdetect report {run_id}"):
        write_report(run_id)
    assert MlflowClient().get_run(run_id).info.status == "FINISHED"


def test_a_report_that_fails_under_mlflow_run_leaves_the_run_finished() -> None:
    """After the process has ended, `mlflow run` sets the status by its exit status."""
    run_id = finished(**{"mlflow.source.type": "PROJECT"})
    client = MlflowClient()
    client.log_text(run_id, "", "report.html/is a folder.txt")
    with pytest.raises(ReportFailed):
        write_report(run_id)
    client.set_terminated(run_id, "FAILED")
    deadline = time.monotonic() + 60
    while client.get_run(run_id).info.status != "FINISHED":
        assert time.monotonic() < deadline
        time.sleep(0.2)

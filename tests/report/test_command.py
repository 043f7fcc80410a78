"""Reports of real runs: collected from a store, logged to it, and never at a run's cost."""

import time
from collections.abc import Iterator
from pathlib import Path

import mlflow
import pandas as pd
import pytest
from mlflow.tracking import MlflowClient

from synthdetect.cli import main
from synthdetect.commands.report import ReportFailed, write_report
from synthdetect.report.collect import collected
from synthdetect.system.errors import UserError
from tests.report.conftest import overall


@pytest.fixture(scope="module", autouse=True)
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A working folder with an MLflow store, one for all: making a store takes seconds."""
    folder = tmp_path_factory.mktemp("store")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{folder}/mlflow.db")
        patch.delenv("MLFLOW_RUN_ID", raising=False)
        mlflow.set_tracking_uri(f"sqlite:///{folder}/mlflow.db")
        yield folder


def finished(**tags: str) -> str:
    """A run that has ended, with a table of results."""
    with mlflow.start_run(tags={"synthdetect.kind": "train", **tags}) as run:
        MlflowClient().log_text(run.info.run_id, overall().to_csv(), "evaluation/test.csv")
    return str(run.info.run_id)


def page(run_id: str) -> str:
    return Path(
        mlflow.artifacts.download_artifacts(run_id=run_id, artifact_path="report.html")
    ).read_text()


def test_a_report_is_an_artifact_of_a_run_that_stays_as_it_was(
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


def test_made_again_it_is_the_same() -> None:
    run_id = finished()
    write_report(run_id)
    first = page(run_id)
    write_report(run_id)
    assert page(run_id) == first


def test_a_run_that_is_not_there_or_is_deleted_is_refused(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["report", "nosuch"]) == 2
    assert "no run 'nosuch'" in capsys.readouterr().err
    run_id = finished()
    MlflowClient().delete_run(run_id)
    with pytest.raises(UserError, match="restore it"), collected(run_id):
        pass


def test_artifacts_of_one_name_in_several_folders_are_kept_apart() -> None:
    run_id = finished()
    client = MlflowClient()
    for folder in ("predictions", "a", "a/b"):
        client.log_text(run_id, f"x\n{folder}\n", f"{folder}/test.csv")
    client.log_text(run_id, "not read", "checkpoints/last.safetensors")
    with collected(run_id) as record:
        assert pd.read_csv(record.folder / "a/b/test.csv")["x"].tolist() == ["a/b"]
        assert pd.read_csv(record.folder / "a/test.csv")["x"].tolist() == ["a"]
        assert set(pd.read_csv(record.folder / "evaluation/test.csv")) >= {"metric", "value"}
        assert record.sizes["checkpoints/last.safetensors"] == 8
        assert not (record.folder / "checkpoints").exists()
    assert not record.folder.exists()


def test_the_runs_inside_are_collected_in_the_order_of_their_start() -> None:
    with mlflow.start_run() as parent:
        for name in ("second", "first"):
            with mlflow.start_run(run_name=name, nested=True):
                mlflow.log_metric("test/auc", 0.5)
            time.sleep(0.01)
    with collected(parent.info.run_id) as record:
        assert [(c.name, c.status) for c in record.children] == [
            ("second", "FINISHED"),
            ("first", "FINISHED"),
        ]
        assert record.children[0].metrics == {"test/auc": 0.5}


def test_a_report_that_fails_says_so_and_leaves_the_run_finished() -> None:
    run_id = finished()
    in_the_way = "report.html/is a folder.txt"
    MlflowClient().log_text(run_id, "", in_the_way)
    with pytest.raises(ReportFailed, match=f"has ended well.*synthdetect report {run_id}"):
        write_report(run_id)
    assert MlflowClient().get_run(run_id).info.status == "FINISHED"


def test_mlflow_run_cannot_call_a_run_failed_for_its_report() -> None:
    """It sets the status by the process's exit status, when that has ended."""
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

"""A run keeps its status under `mlflow run`."""

from pathlib import Path

import pytest
from mlflow.tracking import MlflowClient

from synthdetect.tracking import status


@pytest.mark.parametrize(
    ("found", "then"), [("FAILED", "KILLED"), ("RUNNING", "RUNNING"), ("FINISHED", "FINISHED")]
)
def test_only_what_mlflow_run_writes_is_set_back(workspace: Path, found: str, then: str) -> None:
    client = MlflowClient()
    run_id = client.create_run("0").info.run_id
    if found != "RUNNING":
        client.set_terminated(run_id, found)
    status.main(run_id, "KILLED")
    assert client.get_run(run_id).info.status == then


def test_a_store_that_is_away_does_not_end_the_watch_over_a_status(
    away: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(status, "_SECONDS", 1)
    status.main("0" * 32, "KILLED")

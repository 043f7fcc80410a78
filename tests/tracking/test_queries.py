"""Runs are read from the store: whole, and never taken for absent while the store is away."""

from pathlib import Path

import pytest
from mlflow.tracking import MlflowClient

from synthdetect.cli import main
from synthdetect.system.errors import UserError
from synthdetect.tracking.availability import StoreAway
from synthdetect.tracking.detectors import find_detectors
from synthdetect.tracking.opening import open_run
from synthdetect.tracking.queries import (
    child_ids,
    child_runs,
    existing,
    is_there,
    metric_history,
    read_table,
)
from synthdetect.tracking.tags import FOLD, PARENT


def test_a_store_that_is_away_is_not_taken_for_one_without_the_run(
    away: str, capsys: pytest.CaptureFixture[str]
) -> None:
    for look in (existing, is_there, lambda run_id: find_detectors((run_id,))):
        with pytest.raises(StoreAway):
            look("0" * 32)  # type: ignore[operator]
    assert main(["promote", "detector", "1"]) == 1
    assert "no version" not in capsys.readouterr().err


def test_what_is_not_there_is_not_there(workspace: Path) -> None:
    assert not is_there("")
    assert not is_there("0" * 32)
    with pytest.raises(UserError, match="no run"):
        existing("0" * 32)
    with open_run("r", kind="test", tags={}) as run:
        assert read_table(run.id, "x/none.csv") is None
        assert read_table("0" * 32, "x/none.csv") is None


def test_child_runs_are_all_found_in_the_order_of_their_starts(
    workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = MlflowClient()
    parent = client.create_run("0").info.run_id
    made = [
        client.create_run("0", tags={PARENT: parent, FOLD: str(n)}, start_time=1000 + n).info.run_id
        for n in range(5)
    ]
    client.delete_run(made.pop(2))
    search = MlflowClient.search_runs
    pages_of_two = lambda *given, **options: search(*given, **options, max_results=2)  # noqa: E731
    monkeypatch.setattr(MlflowClient, "search_runs", pages_of_two)
    assert [child.id for child in child_runs(parent)] == made
    assert child_ids(parent) == dict(zip("0134", made, strict=True))


def test_columns_of_names_are_text(workspace: Path) -> None:
    with open_run("r", kind="test", tags={}) as run:
        MlflowClient().log_text(run.id, "path,generator,label,logit\n01,4,1,0.5\n", "x/table.csv")
    table = read_table(run.id, "x/table.csv")
    assert table is not None
    assert table.to_dict("records") == [{"path": "01", "generator": "4", "label": 1, "logit": 0.5}]


def test_a_metric_is_read_by_step(workspace: Path) -> None:
    with open_run("r", kind="test", tags={}) as run:
        for step in (2, 1):
            run.log_metrics({"a": step / 3}, step)
    assert metric_history(run.id, "a") == {1: 1 / 3, 2: 2 / 3}
    assert existing(run.id).metrics["a"] == 2 / 3

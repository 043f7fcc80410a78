"""Whatever is logged to a run is there once, also when the store was away meanwhile."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
import pytest
import requests
from mlflow.tracking import MlflowClient
from PIL import Image

from synthdetect.tracking import availability
from synthdetect.tracking import run as tracking
from synthdetect.tracking.availability import PATIENCE, StoreAway
from synthdetect.tracking.opening import open_run
from synthdetect.tracking.run import Run

Outage = Callable[[bool], None]
HISTORY = [{"train/loss": 1 / epoch, "val/auc": 0.5 + epoch / 100} for epoch in range(1, 7)]


@pytest.fixture
def run(workspace: Path) -> Run:
    return Run(MlflowClient().create_run("0").info.run_id)


@pytest.fixture
def outage(monkeypatch: pytest.MonkeyPatch) -> Outage:
    """Begin (True) or end (False) an outage: requests arrive, but their answers are lost."""
    log_batch, away = MlflowClient.log_batch, False

    def disturbed(self: MlflowClient, *arguments: Any, **options: Any) -> Any:
        log_batch(self, *arguments, **options)
        if away:
            raise requests.ConnectionError("refused")

    def turn(on: bool) -> None:
        nonlocal away
        away = on

    monkeypatch.setattr(MlflowClient, "log_batch", disturbed)
    monkeypatch.setattr(tracking, "require_answer", lambda: disturbed_look(away))
    monkeypatch.setattr(availability, "answers", lambda: not away)
    monkeypatch.setattr(availability, "PAUSE", 0.0)
    monkeypatch.setattr(tracking, "PAUSE", 0.0)
    monkeypatch.setattr(tracking, "_BACKOFF", 0.0)
    monkeypatch.setenv(PATIENCE, "0")
    return turn


def disturbed_look(away: bool) -> None:
    if away:
        raise requests.ConnectionError("refused")


def points(run: Run, name: str) -> list[tuple[int, float]]:
    history = MlflowClient().get_metric_history(run.id, name)
    return sorted((point.step, point.value) for point in history)


def wanted(name: str, epochs: int, after: int = 0) -> list[tuple[int, float]]:
    return [(after + step, HISTORY[step - 1][name]) for step in range(1, epochs + 1)]


def test_epochs_that_were_missed_are_logged_with_the_next_one(
    run: Run, outage: Outage, capsys: pytest.CaptureFixture[str]
) -> None:
    for epoch in range(1, 7):
        outage(epoch in (2, 3, 5))
        run.log_progress(HISTORY[:epoch], {})
        if epoch in (4, 6):
            for name in HISTORY[0]:
                assert points(run, name) == wanted(name, epoch)
    assert capsys.readouterr().out.count("refused") == 2  # once an outage


def test_whatever_waits_for_the_store_logs_the_missed_epochs_first(
    run: Run, outage: Outage
) -> None:
    outage(True)
    run.log_progress(HISTORY[:1], {})
    run.log_progress(HISTORY[:2], {})
    run.log_progress(HISTORY[:1], {}, after=2)  # another training in the same run
    with pytest.raises(StoreAway, match=rf"--resume {run.id}"):
        run.set_tags({"a": "b"})
    outage(False)
    run.set_tags({"a": "b"})
    assert points(run, "val/auc") == wanted("val/auc", 2) + wanted("val/auc", 1, after=2)


def test_while_a_server_is_away_it_is_seldom_looked_at(
    run: Run, outage: Outage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tracking, "PAUSE", 60.0)
    outage(True)
    run.log_progress(HISTORY[:1], {})
    monkeypatch.setattr(tracking, "require_answer", lambda: pytest.fail("looked"))
    for epoch in range(2, 7):
        run.log_progress(HISTORY[:epoch], {})


def test_an_epoch_that_the_store_refuses_is_an_error(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    MlflowClient().delete_run(run.id)
    with pytest.raises(mlflow.MlflowException, match="active"):
        run.log_progress(HISTORY[:1], {})


def test_a_resumed_run_gets_only_what_it_lacks(run: Run) -> None:
    run.log_progress(HISTORY[:1], {})
    run.log_metrics({"best": 0.5})
    resumed = Run(run.id, resumed=True)
    resumed.log_history(HISTORY[:3], {})
    for epoch in (3, 4):
        resumed.log_progress(HISTORY[:epoch], {})
    resumed.log_metrics({"best": 0.5, "other": 0.25})
    assert points(run, "val/auc") == wanted("val/auc", 4)
    assert points(run, "best") == [(0, 0.5)]
    assert points(run, "other") == [(0, 0.25)]


def test_many_parameters_are_logged_and_none_is_changed(run: Run) -> None:
    many = {f"p{number}": number for number in range(250)}
    run.log_params(many)
    Run(run.id).log_params({"p0": "other", "q": 1})
    found = MlflowClient().get_run(run.id).data.params
    assert found == {name: str(value) for name, value in (many | {"q": 1}).items()}


def test_rows_that_are_logged_twice_are_there_once(workspace: Path) -> None:
    table = pd.DataFrame({"name": ["a", "b"], "value": [0.1, float("nan")]})
    with open_run("r", kind="test", tags={}) as run:
        run.log_rows(table, "x/rows.json")
        run.log_rows(table, "x/rows.json")
        run.log_rows(table, "x/others.json")
        MlflowClient().log_table(run.id, table, "x/mlflows.json")
        loaded = mlflow.load_table("x/rows.json", run_ids=[run.id])
    pd.testing.assert_frame_equal(loaded, table)
    texts = [mlflow.artifacts.load_text(f"runs:/{run.id}/x/{name}.json")
             for name in ("rows", "mlflows")]  # fmt: skip
    assert texts[0] == texts[1]
    listed = MlflowClient().get_run(run.id).data.tags["mlflow.loggedArtifacts"]
    assert [listed.count(f"x/{name}.json") for name in ("rows", "others", "mlflows")] == [1, 1, 1]


def test_an_image_is_an_artifact_under_its_name(run: Run) -> None:
    picture = Image.fromarray(np.arange(48, dtype=np.uint8).reshape(4, 4, 3))
    run.log_image(picture, "explain/test/mistakes/01_p0.97_real.png")
    found = mlflow.artifacts.list_artifacts(run_id=run.id, artifact_path="explain/test/mistakes")
    assert [item.path for item in found] == ["explain/test/mistakes/01_p0.97_real.png"]
    file = mlflow.artifacts.download_artifacts(run_id=run.id, artifact_path=found[0].path)
    assert (np.asarray(Image.open(file)) == np.asarray(picture)).all()


def test_files_that_cannot_be_logged_at_once_are_named_and_raise_no_error(
    away: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Run("0" * 32).try_to_log_files([tmp_path / "last.safetensors"], "checkpoints")
    said = capsys.readouterr().out
    assert "last.safetensors" in said
    assert "does not answer" in said

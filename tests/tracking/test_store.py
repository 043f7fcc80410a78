"""Making the tracking store, of which the other tests use a copy."""

from pathlib import Path

import mlflow

from synthdetect.tracking.store import make_store, require_store
from tests.conftest import STORE


def test_a_store_is_made_whole_and_once(workspace: Path) -> None:
    (workspace / STORE).unlink()
    make_store()
    require_store()
    assert [path.name for path in workspace.iterdir()] == [STORE]
    with mlflow.start_run() as run:
        mlflow.log_text("text", "file.txt")
    make_store()
    assert mlflow.get_run(run.info.run_id).info.status == "FINISHED"
    assert list((workspace / "mlruns").rglob("file.txt"))

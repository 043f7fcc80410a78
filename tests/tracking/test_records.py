"""A run is collected with its artifacts and child runs, and nothing is left of it on disk."""

import time
from pathlib import Path

import mlflow
import pandas as pd
from mlflow.tracking import MlflowClient

from synthdetect.tracking.records import collected


def test_artifacts_with_the_same_name_in_several_folders_are_kept_apart(workspace: Path) -> None:
    client = MlflowClient()
    run_id = client.create_run("0").info.run_id
    for folder in ("evaluation", "a", "a/b"):
        client.log_text(run_id, f"x\n{folder}\n", f"{folder}/test.csv")
    client.log_text(run_id, "not read", "checkpoints/last.safetensors")
    with collected(run_id, (".csv",)) as record:
        assert pd.read_csv(record.folder / "a/b/test.csv")["x"].tolist() == ["a/b"]
        assert pd.read_csv(record.folder / "a/test.csv")["x"].tolist() == ["a"]
        assert pd.read_csv(record.folder / "evaluation/test.csv")["x"].tolist() == ["evaluation"]
        assert record.sizes["checkpoints/last.safetensors"] == 8
        assert not (record.folder / "checkpoints").exists()
    assert not record.folder.exists()


def test_child_runs_are_collected_in_the_order_of_their_start(workspace: Path) -> None:
    with mlflow.start_run() as parent:
        for name in ("second", "first"):
            with mlflow.start_run(run_name=name, nested=True):
                mlflow.log_metric("test/auc", 0.5)
            time.sleep(0.01)
    with collected(parent.info.run_id, ()) as record:
        assert [(c.name, c.status) for c in record.children] == [
            ("second", "FINISHED"),
            ("first", "FINISHED"),
        ]
        assert record.children[0].metrics == {"test/auc": 0.5}

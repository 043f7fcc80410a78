"""Cross-validation through `mlflow run`: the tree of runs, a kill, a damaged fold, the refit."""

import signal
import time

import mlflow
import pandas as pd
import pytest
from mlflow.entities import Run

from tests.e2e.conftest import Platform, end

OPTIONS = {"epochs": "2", "folds": "3"}


def children(platform: Platform, parent: Run) -> dict[str, Run]:
    query = f"tags.`mlflow.parentRunId` = '{parent.info.run_id}'"
    runs = platform.client().search_runs(["0"], query)
    return {run.data.tags["synthdetect.fold"]: run for run in runs}


@pytest.mark.long
def test_killed_damaged_mended_and_finished(platform: Platform, small_table: pd.DataFrame) -> None:
    # Killed in the second fold.
    process = platform.start(*platform.project("cv", refit="true", register="cv", **OPTIONS))
    platform.wait_for(process, "fold 2 of 3")
    while platform.output().count("epoch   1/2") < 2:
        time.sleep(0.02)
    end(process, signal.SIGKILL)
    parent = platform.latest(synthdetect__kind="cv")
    first = children(platform, parent)["1"]
    assert first.info.status == "FINISHED"
    checkpoint = platform.folder / "runs" / children(platform, parent)["2"].info.run_id
    (last,) = checkpoint.glob("last.safetensors")
    whole = last.read_bytes()

    # Its checkpoint is damaged: that fold fails, the third is done, and the parent says so.
    last.write_bytes(whole[:1000])
    again = platform.direct("cv", refit="true", register="cv", resume=parent.info.run_id, **OPTIONS)
    assert platform.run(*again) == 1
    assert "1 of 3 trainings failed: fold 2 of 3: UserError:" in platform.output()
    assert platform.client().get_run(parent.info.run_id).info.status == "FAILED"
    statuses = {fold: run.info.status for fold, run in children(platform, parent).items()}
    assert statuses == {"1": "FINISHED", "2": "FAILED", "3": "FINISHED"}

    # Mended, only what was unfinished is done.
    last.write_bytes(whole)
    before = children(platform, parent)
    assert platform.run(*again) == 0, platform.output()
    after = children(platform, parent)
    assert {f: r.info.status for f, r in after.items()} == dict.fromkeys(
        ("1", "2", "3", "refit"), "FINISHED"
    )
    for fold in ("1", "3"):
        assert after[fold].info.end_time == before[fold].info.end_time
    client = platform.client()
    done = client.get_run(parent.info.run_id)
    assert done.info.status == "FINISHED"
    assert "report.html" in [item.path for item in client.list_artifacts(done.info.run_id)]
    for fold in ("1", "2", "3"):
        steps = [p.step for p in client.get_metric_history(after[fold].info.run_id, "val/auc")]
        assert steps == [1, 2]

    # What the parent holds is what its folds say.
    aucs = [after[fold].data.metrics["best/val/auc"] for fold in ("1", "2", "3")]
    assert done.data.metrics["cv/auc/mean"] == pd.Series(aucs).mean()
    assert done.data.metrics["cv/auc/std"] == pd.Series(aucs).std()
    labelled = small_table[small_table["split"].isin(["train", "val"])]
    oof = table(done, "predictions/oof.csv")
    assert sorted(oof["path"]) == sorted(labelled["path"])
    folds = table(done, "folds.csv").set_index("path")["fold"]
    assert (oof.set_index("path")["fold"] == folds[oof["path"]]).all()
    sources = labelled.set_index("path")["source_id"]
    assert (folds.groupby(sources[folds.index]).nunique() == 1).all()

    # The final model: every labelled image, and the decision from out-of-fold predictions.
    refit = after["refit"]
    assert refit.data.metrics["decision/threshold"] == done.data.metrics["decision/threshold"]
    train = [refit.data.metrics[f"data/train/{label}"] for label in ("real", "synthetic")]
    assert sum(train) == len(labelled)
    assert "val/auc" not in refit.data.metrics
    version = client.get_model_version_by_alias("cv", "champion")
    assert version.run_id == refit.info.run_id

    # Another one on the same folds, leaving no trace of its own assignment.
    reuse = platform.direct("cv", epochs="1", seed="7", folds_from=parent.info.run_id)
    assert platform.run(*reuse) == 0, platform.output()
    assert table(platform.latest(synthdetect__kind="cv"), "folds.csv").equals(
        table(done, "folds.csv")
    )


def table(run: Run, path: str) -> pd.DataFrame:
    return pd.read_csv(
        mlflow.artifacts.download_artifacts(run_id=run.info.run_id, artifact_path=path)
    )

"""Tests of cross-validation: the seeds of its trainings, and folds that hold generators out."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mlflow
import pandas as pd
import pytest
from mlflow.entities import Run

from synthdetect.cli import main
from synthdetect.datasets.splits import group_codes
from synthdetect.models.tensors import digest_of, tensors_of
from synthdetect.runs import cross_validation
from synthdetect.system.seeds import derive_seed
from synthdetect.tracking.run import Run as Logged
from synthdetect.training.session import Session
from tests.conftest import artifact

TINY = ["--data=small.csv", "--arch=mobilenet_v3_large", "--image-size=32", "--batch-size=16",
        "--weights=none", "--lr=1e-3", "--epochs=1"]  # fmt: skip


@pytest.fixture(scope="module")
def folder(module_path: Path, small_table: pd.DataFrame) -> Iterator[Path]:
    """A working folder with the manifest of some images."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(module_path)
        uri = f"sqlite:///{module_path}/mlflow.db"
        patch.setenv("MLFLOW_TRACKING_URI", uri)
        mlflow.set_tracking_uri(uri)
        patch.setenv("SYNTHDETECT_CACHE", str(module_path / "cache"))
        patch.delenv("MLFLOW_RUN_ID", raising=False)
        table = small_table[small_table["split"].isin(["train", "val", "test"])]
        few = table.groupby("split")["source_id"].unique().map(lambda names: list(names[:14]))
        table[table["source_id"].isin(few.sum())].to_csv("small.csv", index=False)
        yield module_path


def latest(kind: str) -> Run:
    query = f"tags.`synthdetect.kind` = '{kind}'"
    return next(iter(mlflow.search_runs(filter_string=query, output_format="list")))


def inside(parent: Run) -> dict[str, Run]:
    """Return the trainings of a cross-validation by name."""
    query = f"tags.`mlflow.parentRunId` = '{parent.info.run_id}'"
    runs = list(mlflow.search_runs(filter_string=query, output_format="list"))
    return {run.data.tags["synthdetect.fold"]: run for run in runs}


def test_every_training_starts_from_weights_of_its_own_and_is_reproduced(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    starts: list[str] = []
    fit = Session.fit

    def recording(session: Session, *given: Any, **named: Any) -> None:
        starts.append(digest_of(tensors_of(session.network)))
        fit(session, *given, **named)

    monkeypatch.setattr(Session, "fit", recording)
    assert main(["cv", "--folds=2", "--refit=true", *TINY]) == 0
    parent = latest("cv")
    trainings = inside(parent)
    seeds = {name: int(run.data.params["optim.seed"]) for name, run in trainings.items()}
    assert seeds == {"1": derive_seed(42, 1), "2": derive_seed(42, 2), "refit": derive_seed(42, 3)}
    assert parent.data.params["optim.seed"] == "42"
    assert len(set(starts)) == 3

    capsys.readouterr()
    assert main(["reproduce", trainings["2"].info.run_id]) == 0
    output = capsys.readouterr().out
    assert "reproduced bit for bit" in output
    assert "optim.seed" not in output  # no setting that differs
    assert latest("reproduce").data.params["optim.seed"] == str(seeds["2"])
    assert starts[3] == starts[1]


@pytest.mark.long
@pytest.mark.thorough
def test_a_cross_validation_of_an_older_version_goes_on_and_is_reproduced(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its folds have the seed of the cross-validation. It is interrupted in the second."""
    logged: list[object] = []
    log_progress = Logged.log_progress

    def interrupt(*given: Any, **named: Any) -> None:
        logged.append(given)
        if len(logged) == 2:
            raise KeyboardInterrupt
        log_progress(*given, **named)

    with monkeypatch.context() as patch:
        patch.setattr(cross_validation, "derive_seed", lambda seed, key: seed)
        patch.setattr(Logged, "log_progress", interrupt)
        assert main(["cv", "--folds=3", "--seed=7", *TINY]) == 130
    parent = latest("cv")
    assert main(["cv", f"--resume={parent.info.run_id}"]) == 0
    seeds = {name: run.data.params["optim.seed"] for name, run in inside(parent).items()}
    assert seeds == {"1": "7", "2": "7", "3": str(derive_seed(7, 3))}
    capsys.readouterr()
    assert main(["reproduce", parent.info.run_id]) == 0
    output = capsys.readouterr().out
    assert "reproduced bit for bit" in output
    assert "optim.seed" not in output
    again = {
        name: run.data.params["optim.seed"] for name, run in inside(latest("reproduce")).items()
    }
    assert again == seeds


def test_a_held_out_generator_is_scored_once_and_chooses_nothing(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["cv", "--group-by=generator", "--refit=true", *TINY]) == 0
    parent = latest("cv")
    trainings, pool = inside(parent), artifact(parent, "predictions/oof.csv")
    folds = artifact(parent, "folds.csv")
    aucs, expected = [], []
    for name in ("1", "2"):
        run = trainings[name]
        manifest = artifact(run, "data/manifest.csv").fillna("")
        held_out = folds.loc[folds["fold"] == int(name), "held_out"].iloc[0]
        groups = pd.Series(group_codes(manifest)).groupby(manifest["split"].to_numpy()).agg(set)
        assert set(groups.index) == {"train", "val", "test", "held_out"}
        assert not groups["train"] & groups["val"]
        assert not (groups["train"] | groups["val"]) & groups["held_out"]
        by_split = manifest.groupby("split")["generator"].agg(set)
        assert held_out in by_split["held_out"]
        assert held_out not in by_split["train"] | by_split["val"]
        own = pool[pool["fold"] == int(name)].set_index("path")
        expected = artifact(run, "predictions/held_out.csv").set_index("path")
        assert own["raw_logit"].equals(expected["raw_logit"])
        # The calibration of the fold's detector, which was fitted on its validation images.
        assert own["logit"].to_numpy() == pytest.approx(expected["logit"].to_numpy(), rel=1e-9)
        aucs.append(run.data.metrics["held_out/auc"])
        assert {"best/val/auc", "test/auc"} <= set(run.data.metrics)
        assert [p.step for p in history(run, "held_out/auc")] == [0]
        assert not history(run, "val/held_out/auc")
    assert parent.data.metrics["cv/auc/mean"] == pytest.approx(sum(aucs) / 2)
    assert {"cv/val/auc/mean", "cv/test/auc/mean", "oof/auc"} <= set(parent.data.metrics)
    assert "influenced none of these" in parent.data.tags["mlflow.note.content"]
    page = mlflow.artifacts.load_text(f"{parent.info.artifact_uri}/report.html")
    assert "Images of the generator that each fold held out" in page
    assert "influenced none of these" in page
    of_refit = trainings["refit"].data.metrics
    for name in ("threshold", "prior", "temperature"):
        assert of_refit[f"decision/{name}"] == parent.data.metrics[f"decision/{name}"]

    capsys.readouterr()
    assert main(["reproduce", trainings["2"].info.run_id]) == 0
    assert "reproduced bit for bit" in capsys.readouterr().out

    # The folds of an older version, which has no `val`, chose on what they held out. They are not
    # gone on with, but a new cross-validation may take their assignment.
    file = Path(str(parent.info.artifact_uri).removeprefix("file://")) / "folds.csv"
    file.write_text(folds.drop(columns="val").to_csv(index=False))
    assert main(["reproduce", trainings["2"].info.run_id]) == 2
    message = capsys.readouterr().err
    assert "chose epoch and threshold on the generator that they held out" in message
    assert main(["cv", f"--folds-from={parent.info.run_id}", *TINY]) == 0
    assert artifact(latest("cv"), "folds.csv").equals(folds)
    assert "held_out/auc" in inside(latest("cv"))["1"].data.metrics


def history(run: Run, metric: str) -> list[Any]:
    return list(mlflow.MlflowClient().get_metric_history(run.info.run_id, metric))

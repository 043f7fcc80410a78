"""Small sweeps in one process: tuning, final fits and results, with runs that match trials."""

from dataclasses import replace
from pathlib import Path

import mlflow
import numpy as np
import optuna
import pandas as pd
import pytest
from mlflow.entities import Run
from optuna.trial import TrialState

from sweeps import study as study_module
from sweeps import tuning
from sweeps.__main__ import COMMANDS
from sweeps.plan import USUAL
from sweeps.seeds import final_seed, tuning_seed
from sweeps.statistics.power import Components, Design, smallest_found
from sweeps.statistics.verdicts import WORDS
from sweeps.storage import open_storage
from sweeps.strategies import STRATEGIES, FloatRange, SearchParameter
from synthdetect.cli import main
from synthdetect.models.networks import build
from synthdetect.models.spec import ModelSpec
from synthdetect.tracking.availability import PATIENCE
from synthdetect.tracking.models import models_of
from synthdetect.tracking.tags import CHECKPOINTS
from tests.conftest import artifact

pytestmark = pytest.mark.usefixtures("without_figures")
SMALL = ["--arch", "mobilenet_v3_large", "--image-size", "32", "--batch-size", "16",
         "--weights", "none", "--epochs", "1", "--trials", "2", "--folds", "2",
         "--seeds", "1"]  # fmt: skip


def run_sweep(data: Path, *arguments: str) -> int:
    given = ["sweep", "--data", str(data), *SMALL, *arguments]
    return main(given, program="sweeps", commands=COMMANDS)


def runs(kind: str) -> list[Run]:
    query = f"tags.`synthdetect.kind` = '{kind}'"
    return mlflow.search_runs(filter_string=query, output_format="list")


def study(name: str) -> optuna.Study:
    return optuna.load_study(study_name=name, storage="sqlite:///optuna.db")


def assert_runs_match(name: str) -> None:
    """Each settled trial of a study has a run that names the trial and ended in its state."""
    statuses = {
        TrialState.COMPLETE: "FINISHED", TrialState.PRUNED: "KILLED", TrialState.FAIL: "FAILED",
    }  # fmt: skip
    for trial in tuning.settled(study(name)):
        run = mlflow.get_run(trial.user_attrs[tuning.RUN])
        assert run.info.status == statuses[trial.state]
        assert run.data.tags[study_module.TRIAL] == str(trial.number)
        assert run.data.tags["optuna.study"] == name
        assert run.data.tags[study_module.STATE] == {
            "FINISHED": "complete", "KILLED": "pruned", "FAILED": "failed",
        }[run.info.status]  # fmt: skip


def test_a_sweep_tunes_fits_and_judges(
    workspace: Path, small_manifest: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ["--strategies", "focal,dann", "--study", "s"]
    assert run_sweep(small_manifest, *given) == 0, capsys.readouterr().err
    (parent,) = runs("sweep")
    assert parent.info.status == "FINISHED"
    sides = ("baseline", "focal", "dann")
    assert len(runs("trial")) == len(sides) * 2
    assert len(runs("final")) == len(sides) * 2
    for name in (*sides, "finals"):
        assert_runs_match(f"s/{name}")
    for run in [*runs("trial"), *runs("final")]:
        assert run.data.tags["mlflow.parentRunId"] == parent.info.run_id
        assert run.data.tags["synthdetect.study"] == "s"

    # Every side has the same folds and seeds; the first trial has the strategy's first values.
    by_side: dict[str, list[Run]] = {}
    for run in runs("final"):
        by_side.setdefault(run.data.tags["synthdetect.strategy"], []).append(run)
    assert {len(found) for found in by_side.values()} == {2}
    starts = {
        side: {run.data.params["final.fold"]: int(run.data.params["optim.seed"]) for run in found}
        for side, found in by_side.items()
    }
    fold_seeds = {str(fold): final_seed(42, 0, fold) for fold in range(2)}
    assert all(seeds == fold_seeds for seeds in starts.values())
    tuned = {int(run.data.params["optim.seed"]) for run in runs("trial")}
    assert tuned == {tuning_seed(42)}
    assert len(tuned | set(fold_seeds.values()) | {42}) == 4, "no start is used twice"
    assert study("s/focal").trials[0].params == {"lr": 1e-4, "focal_gamma": 2.0}
    drawn = {study(f"s/{side}").trials[1].params["lr"] for side in sides}
    assert len(drawn) == 1, "all sides sample the same learning rates"

    # Results.
    comparison = artifact(parent, "sweep/comparison.csv")
    verdicts = artifact(parent, "sweep/verdicts.csv")
    assert comparison["strategy"].tolist() == verdicts["strategy"].tolist() == list(sides[1:])
    assert set(verdicts["verdict"]) <= set(WORDS)
    assert set(comparison["primary"]) == {"auc_unseen"}
    assert (
        "on which the verdicts rest: the change of AUC on unseen generators"
        in (parent.data.tags["mlflow.note.content"])
    )
    assert verdicts["paper"].str.contains("overfitting").all()
    trainings = artifact(parent, "sweep/trainings.csv")
    assert len(trainings) == 6
    network = build(ModelSpec.of("mobilenet_v3_large", 32))
    weights = 4 * sum(p.numel() for p in network.parameters()) / 2**20
    assert (trainings["peak_mib"] > weights).all(), "the weights alone take as much memory"
    artifacts = {f.path for f in mlflow.artifacts.list_artifacts(run_id=parent.info.run_id)}
    assert {"figures", "sweep", "report.html"} <= artifacts
    figures = mlflow.artifacts.list_artifacts(run_id=parent.info.run_id, artifact_path="figures")
    assert "figures/forest.png" in {f.path for f in figures}

    # Every final fit logs one model, which predicts what the run recorded.
    for run in runs("final"):
        assert len(models_of(run.info.run_id)) == 1
        assert not mlflow.MlflowClient().list_artifacts(run.info.run_id, CHECKPOINTS)
    final = by_side["focal"][0]
    recorded = artifact(final, "predictions/test.csv")
    recorded[["path"]].to_csv("test.csv", index=False)
    assert main(["predict", "--model", final.info.run_id, "--data", "test.csv"]) == 0
    predicted = pd.read_csv("predictions/predictions.csv")
    assert predicted["image"].tolist() == recorded["path"].tolist()
    np.testing.assert_array_equal(predicted["logit"], recorded["logit"])
    np.testing.assert_array_equal(predicted["label"], recorded["predicted"])

    # The study continues without training anything again, and refuses other options.
    capsys.readouterr()
    assert run_sweep(small_manifest, *given) == 0
    assert "epoch" not in capsys.readouterr().out
    assert len(runs("trial")) + len(runs("final")) == 12
    shown = mlflow.MlflowClient().load_table("0", "sweep/comparison.json")
    assert len(shown) == len(sides[1:])
    assert run_sweep(small_manifest, *given, "--lr", "1e-3") == 2
    assert "lr 0.0001" in capsys.readouterr().err


def test_diverged_trials_are_failed_and_pruned_ones_killed(
    workspace: Path,
    small_manifest: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The first learning rate diverges; a later trial has a pruner that no trial can satisfy."""
    diverging = SearchParameter(FloatRange(1e-4, 1e-3), first=1e30)
    smoothing = replace(STRATEGIES["label_smoothing"], space={"lr": diverging})
    monkeypatch.setitem(STRATEGIES, "label_smoothing", smoothing)
    given = ["--strategies", "label_smoothing", "--study", "s", "--epochs", "2"]
    opened = tuning.open_study

    def strict(*args: object, **options: object) -> optuna.Study:
        found = opened(*args, **options)  # type: ignore[arg-type]
        if found.study_name == "s/label_smoothing" and len(found.trials) == 2:
            found.pruner = optuna.pruners.ThresholdPruner(lower=2)
        return found

    monkeypatch.setattr(tuning, "open_study", strict)
    assert run_sweep(small_manifest, *given, "--trials", "3") == 0
    for name in ("s/baseline", "s/label_smoothing", "s/finals"):
        assert_runs_match(name)
    states = [trial.state for trial in study("s/label_smoothing").trials]
    assert states[0] == TrialState.FAIL
    assert states[2] == TrialState.PRUNED
    (pruned,) = [run for run in runs("trial") if run.info.status == "KILLED"]
    assert pruned.data.tags["synthdetect.stopped"].startswith("pruned after step 1")
    (parent,) = runs("sweep")
    comparison = artifact(parent, "sweep/comparison.csv").iloc[0]
    assert comparison["trials"] == 3


def test_an_interrupted_trial_resumes_its_run(
    workspace: Path, small_manifest: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = ["--strategies", "focal", "--study", "s", "--trials", "1", "--folds", "1"]

    def interrupt(*arguments: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(study_module, "_report", interrupt)
        assert run_sweep(small_manifest, *given) == 130
    (before,) = runs("trial")
    assert before.info.status == "KILLED"
    assert before.data.tags[study_module.STATE] == "interrupted"
    checkpoints = workspace / "runs" / before.info.run_id
    assert any(checkpoints.rglob("*"))
    assert run_sweep(small_manifest, *given) == 0
    assert_runs_match("s/baseline")
    (trial,) = tuning.settled(study("s/baseline"))
    assert trial.user_attrs[tuning.RUN] == before.info.run_id
    assert not checkpoints.exists()


def unseen_photographs(manifest: Path) -> int:
    """Test photographs of the real images, or of unseen generators if those have fewer."""
    rows = pd.read_csv(manifest, keep_default_na=False)
    trained = set(rows.loc[rows["split"] == "train", "generator"]) - {""}
    test = rows[(rows["split"] == "test") & ~rows["generator"].isin(trained)]
    return int(test.groupby("label")["source_id"].nunique().min())


def test_a_dry_run_prints_the_plan_and_opens_no_run(
    workspace: Path, small_manifest: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_sweep(small_manifest, "--strategies", "sgd", "--dry-run", "true") == 0
    text = capsys.readouterr().out
    assert "baseline" in text
    assert "sgd" in text
    assert "minutes" in text
    assert "Verdicts rest on the change of AUC on unseen generators" in text
    photographs = unseen_photographs(small_manifest)
    found = smallest_found(USUAL, Design(fits=2, photographs=photographs, strategies=1))
    assert (
        f"2 final fits on each side and {photographs} photographs find a change of {found:.3f} "
        "with 80 % power"
    ) in " ".join(text.split())
    assert "show equivalence to within 0.02" in text
    assert mlflow.search_runs(output_format="list") == []


def test_a_plan_rests_on_what_an_earlier_sweep_of_the_same_name_measured(
    workspace: Path, small_manifest: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with mlflow.start_run() as earlier:
        mlflow.log_text(
            "strategy,training_sd,photograph_sd\na,0.01,0.1\nb,0.02,0.2\nc,0.09,0.9\nd,,\n",
            "sweep/comparison.csv",
        )
    baseline = tuning.open_study(open_storage("sqlite:///optuna.db"), "s/baseline")
    baseline.set_user_attr(tuning.RUN, earlier.info.run_id)
    given = ["--strategies", "focal", "--study", "s", "--dry-run", "true"]
    assert run_sweep(small_manifest, *given) == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "in the sweep of this name: its standard deviation is 0.020 between" in text
    photographs = unseen_photographs(small_manifest)
    found = smallest_found(Components(0.02, 0.2), Design(2, photographs, 1))
    assert f"find a change of {found:.3f} with 80 % power" in text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--strategies", "magic"], "--strategies"),
        (["--storage", "nosuch:///x"], "--storage: nosuch:///x cannot be opened"),
        (["--worker", "true"], "--worker: "),
        (["--storage", "grpc://host:13000"], "--storage: grpc://host:13000 is of a kind that has"),
        (["--folds", "80"], "--folds 80"),
        (["--trails", "3"], "Did you mean --trials?"),
        (["--strategies", "vit", "--image-size", "40"], "vit_b_16 needs a multiple of 16"),
    ],
)
def test_unusable_options_are_refused_before_a_run_is_opened(
    workspace: Path,
    small_manifest: Path,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    message: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(PATIENCE, "0")
    assert run_sweep(small_manifest, *arguments) == 2
    assert message in capsys.readouterr().err
    assert mlflow.search_runs(output_format="list") == []

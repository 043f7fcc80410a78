"""Tests of `synthdetect evaluate`: tables and detectors; test images influence no decision."""

import io
from collections.abc import Iterator
from contextlib import redirect_stdout
from pathlib import Path

import mlflow
import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest
from mlflow.entities import Run
from mlflow.tracking import MlflowClient
from scipy.special import logit

from synthdetect.cli import main
from synthdetect.datasets.unlabelled import unlabelled
from synthdetect.detectors.detector import Detector
from synthdetect.detectors.scoring import Scoring
from synthdetect.evaluation.decision import decide
from synthdetect.evaluation.metrics import choose_threshold, metrics
from synthdetect.evaluation.options import DecisionOptions
from synthdetect.images.batches import ImageFiles
from synthdetect.images.geometry import Preprocess
from synthdetect.tracking.detectors import find_detector, find_detectors
from synthdetect.tracking.models import log_detector
from synthdetect.tracking.opening import open_run
from synthdetect.tracking.tags import FOLD
from synthdetect.training.devices import Device
from tests.conftest import artifact, newest

SMALL = ["--arch", "mobilenet_v3_large", "--image-size", "32", "--epochs", "1", "--weights", "none",
         "--batch-size", "16", "--lr", "1e-3"]  # fmt: skip


def write_table(path: Path, **changes: npt.NDArray[np.int64]) -> pd.DataFrame:
    """Forty rows each of val and test, scores a little off."""
    rng = np.random.default_rng(0)
    label = np.tile([0, 1], 40)
    table = pd.DataFrame(
        {
            "path": [f"{i}.png" for i in range(80)],
            "label": label,
            "split": np.repeat(["val", "test"], 40),
            "generator": np.where(label == 1, "sd", ""),
            "logit": 4 * rng.normal(size=80) + 3 * label + 1,
        }
    ).assign(**changes)
    table.to_csv(path, index=False)
    return table


def test_a_table_is_decided_on_its_val_rows_and_reported_on_the_others(workspace: Path) -> None:
    table = write_table(workspace / "table.csv")
    assert main(["evaluate", "--predictions", "table.csv"]) == 0
    run = newest()
    assert (run.info.status, run.data.tags["synthdetect.kind"]) == ("FINISHED", "evaluate")
    logged = run.data.metrics
    test = table[table["split"] == "test"]
    calibrated = test["logit"] / logged["decision/temperature"]
    expected = metrics(test["label"], calibrated, logged["decision/threshold"])
    for name, value in expected.items():
        assert logged[f"test/{name}"] == pytest.approx(value)
    low, high = (logged[f"decision/threshold_{bound}"] for bound in ("low", "high"))
    assert low <= logged["decision/threshold"] <= high
    best = choose_threshold(test["label"], calibrated, "balanced_accuracy")
    assert logged["test/oracle/threshold"] == pytest.approx(best)
    assert logged["test/oracle/balanced_accuracy"] >= logged["test/balanced_accuracy"]
    assert run.data.params["decision.from"] == "chosen on the val rows of these data"
    written = pd.read_csv(workspace / "evaluation" / run.info.run_id / "predictions" / "test.csv")
    assert written["raw_logit"].to_numpy() == pytest.approx(test["logit"].to_numpy())


def test_each_generator_is_set_against_groups_of_real_images(
    workspace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    camera = np.where(np.arange(80) // 2 % 2, "phone", "film")
    write_table(workspace / "table.csv", camera=camera)
    assert main(["evaluate", "--predictions", "table.csv", "--real-by", "lens"]) == 2
    assert "--real-by: no column 'lens'" in (message := capsys.readouterr().err)
    assert "camera" in message
    assert main(["evaluate", "--predictions", "table.csv", "--real-by", "camera"]) == 0
    run, printed = newest(), capsys.readouterr().out
    matrix = artifact(run, "evaluation/test_matrix.csv")
    assert matrix["real_group"].tolist()[:2] == ["film", "phone"]
    assert run.data.metrics["test/matrix/worst/auc"] == matrix["auc"].iloc[-1]
    assert "AUC on test against groups of real images" in printed
    assert "95 % intervals by image" in printed
    report = MlflowClient().download_artifacts(run.info.run_id, "report.html")
    page = Path(report).read_text()
    assert "each generator against each group of real images" in page
    assert "95 % confidence intervals by image" in page


@pytest.mark.parametrize("calibration", ["temperature", "platt", "isotonic"])
def test_test_rows_influence_no_decision(workspace: Path, calibration: str) -> None:
    """Swap all test labels and change all test scores: threshold and calibration stay."""

    def decision(**changes: npt.NDArray[np.int64]) -> dict[str, float]:
        write_table(workspace / "table.csv", **changes)
        given = ["--predictions", "table.csv", "--calibration", calibration, "--decide", "val"]
        assert main(["evaluate", *given]) == 0
        return {k: v for k, v in newest().data.metrics.items() if k.startswith("decision/")}

    table = write_table(workspace / "table.csv")
    is_test = (table["split"] == "test").to_numpy()
    before = decision()
    turned = np.where(is_test, 1 - table["label"], table["label"])
    moved = np.where(is_test, -5 * table["logit"] + 7, table["logit"])
    assert decision(label=turned, logit=moved) == before
    assert decision(label=np.where(is_test, table["label"], 1 - table["label"])) != before


def test_the_detectors_own_decision_comes_from_val_alone(
    workspace: Path, small_table: pd.DataFrame
) -> None:
    """Train twice; the second time every test image has the other label."""
    names = {"real": "synthetic", "synthetic": "real"}

    def decision(table: pd.DataFrame) -> dict[str, float]:
        table.to_csv("small.csv", index=False)
        assert main(["train", "--data", "small.csv", *SMALL]) == 0
        logged = newest().data.metrics
        return {k: v for k, v in logged.items() if k.startswith(("decision/", "best/"))}

    turned = small_table.copy()
    is_test = turned["split"] == "test"
    turned.loc[is_test, "label"] = turned.loc[is_test, "label"].map(names)
    assert decision(small_table) == decision(turned)


def test_a_detector_scores_as_it_did_when_trained(workspace: Path, small_manifest: Path) -> None:
    assert main(["train", "--data", str(small_manifest), *SMALL, "--unsure", "0.01"]) == 0
    trained = newest()
    given = ["--model", trained.info.run_id, "--data", str(small_manifest), "--splits", "test"]
    assert main(["evaluate", *given, "--slices", "category,format"]) == 0
    run = newest()
    was, found = (artifact(r, "predictions/test.csv") for r in (trained, run))
    assert found["logit"].to_numpy() == pytest.approx(was["logit"].to_numpy(), abs=1e-5)
    assert run.data.metrics["decision/threshold"] == trained.data.metrics["decision/threshold"]
    assert 0 <= run.data.metrics["test/unsure/share"] <= 1
    assert set(artifact(run, "evaluation/test_slices.csv")["slice"]) == {"category", "format"}
    facts = artifact(run, "evaluation/held_out.csv").set_index("fact")["value"]
    assert facts["contents shared with train"].startswith("0 of ")
    assert not (workspace / "evaluation" / "state.json").exists()

    # On what it was trained on, it says so. The band is its own even if it is decided anew.
    assert main(["evaluate", *given[:4], "--splits", "train", "--decide", "val"]) == 0
    assert "train/unsure/share" in newest().data.metrics
    facts = artifact(newest(), "evaluation/held_out.csv").set_index("fact")
    assert facts.loc["contents shared with train", "warning"]


def test_a_detector_can_be_decided_anew_though_only_test_is_reported(
    workspace: Path, small_manifest: Path
) -> None:
    assert main(["train", "--data", str(small_manifest), *SMALL]) == 0
    given = ["--model", newest().info.run_id, "--data", str(small_manifest), "--splits", "test"]
    assert main(["evaluate", *given, "--decide", "val"]) == 0
    run = newest()
    assert run.data.params["decision.from"] == "chosen on the val rows of these data"
    assert "test/auc" in run.data.metrics
    assert "val/auc" not in run.data.metrics


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "--model: give one"),
        (["--model", "a,b", "--data", "sample"], "--model: give one"),
        (["--model", "x"], "--data: give"),
        (["--predictions", "t.csv", "--model", "x"], "leave out --model"),
        (["--model", "x", "--data", "sample", "--columns", "a=b"], "--columns"),
        (["--predictions", "none.csv"], "is no file"),
        (["--predictions", "t.csv", "--splits", "other"], "--splits: no other here"),
        (["--predictions", "t.csv", "--slices", "camera"], "--slices: no column 'camera'"),
        (["--predictions", "one.csv", "--decide", "val"], "--decide val"),
        (["--predictions", "two.csv"], "'threshold' holds 2 values"),
        (["--predictions", "t.csv", "--robustness", "all"], "--robustness: a table of"),
        (["--predictions", "t.csv", "--equalised", "true"], "--equalised: a table of"),
        (["--predictions", "own.csv", "--threshold-rule", "fpr", "--max-fpr", "0.1"],
         "--threshold-rule, --max-fpr: not used"),
        (["--predictions", "own.csv", "--threshold-rule", "fpr"], "given by the table"),
        (["--predictions", "own.csv", "--threshold-rule", "fpr"], "Give --decide val"),
        (["--predictions", "own.csv", "--calibration", "none"], "--calibration: not used"),
        (["--predictions", "one.csv", "--calibration", "platt"], "the threshold is 0.5"),
        (["--predictions", "t.csv", "--decide", "given", "--threshold-rule", "f1"],
         "--threshold-rule: not used"),
        (["--predictions", "t.csv", "--threshold", "f1"], "--threshold-rule"),
        (["--predictions", "t.csv", "--views", "flip"], "--views: a table"),
        (["--predictions", "t.csv", "--decide", "val", "--log-model", "true"], "--log-model"),
    ],
)  # fmt: skip
def test_options_that_do_not_fit_are_refused(
    workspace: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    table = write_table(workspace / "t.csv")
    table.assign(split="test").to_csv("one.csv", index=False)
    table.assign(threshold=np.tile([0.1, 0.2], 40)).to_csv("two.csv", index=False)
    table.assign(threshold=0.7).to_csv("own.csv", index=False)
    assert main(["evaluate", *arguments]) == 2
    assert message in capsys.readouterr().err
    assert mlflow.search_runs(output_format="list") == []


def test_a_tables_own_threshold_is_kept(workspace: Path) -> None:
    write_table(workspace / "t.csv").assign(threshold=0.7).to_csv("t.csv", index=False)
    assert main(["evaluate", "--predictions", "t.csv"]) == 0
    assert newest().data.metrics["decision/threshold"] == 0.7
    assert newest().data.params["decision.from"] == "given by the table"


def test_the_options_of_the_decision_are_used_on_val_rows(workspace: Path) -> None:
    table = write_table(workspace / "t.csv")
    table.assign(threshold=0.7).to_csv("t.csv", index=False)
    options = ["--decide", "val", "--threshold-rule", "fpr", "--max-fpr", "0.2", "--unsure", "0.1"]
    assert main(["evaluate", "--predictions", "t.csv", "--calibration", "none", *options]) == 0
    val, logged = table[table["split"] == "val"], newest().data.metrics
    expected = choose_threshold(val["label"], val["logit"], "fpr", 0.2)
    assert logged["decision/threshold"] == pytest.approx(expected)
    assert "test/unsure/share" in logged


@pytest.mark.parametrize("further", [{}, {"split": "test"}, {"threshold": 0.7}])
def test_unsure_is_a_band_around_whichever_threshold_a_table_has(
    workspace: Path, further: dict[str, object]
) -> None:
    write_table(workspace / "t.csv").assign(**further).to_csv("t.csv", index=False)
    assert main(["evaluate", "--predictions", "t.csv", "--unsure", "0.3"]) == 0
    logged = newest().data.metrics
    probability = artifact(newest(), "predictions/test.csv")["probability"]
    left = (np.abs(probability - logged["decision/threshold"]) < 0.3).mean()
    assert logged["test/unsure/share"] == left > 0


@pytest.mark.parametrize("percent", [29, 73, 99])
def test_a_probability_at_a_tables_threshold_is_called_synthetic(
    workspace: Path, percent: int
) -> None:
    """Though the sigmoid of its log-odds may be another number."""
    steps = np.arange(101) / 100
    table = pd.DataFrame({"path": steps, "label": 1, "probability": steps})
    table.assign(threshold=percent / 100).to_csv("t.csv", index=False)
    assert main(["evaluate", "--predictions", "t.csv"]) == 0
    found = artifact(newest(), "predictions/test.csv")
    assert found["probability"].tolist() == steps.tolist()
    assert found["predicted"].tolist() == (steps >= percent / 100).tolist()
    assert newest().data.metrics["test/recall"] == pytest.approx((101 - percent) / 101)
    assert newest().data.metrics["decision/threshold"] == percent / 100


def model_inputs(run_id: str) -> list[str]:
    """Return the ids of the models that a run names as its inputs."""
    inputs = MlflowClient().get_run(run_id).inputs
    assert inputs is not None
    return [model.model_id for model in inputs.model_inputs]


QUICK = ["--explain", "0", "--spectra", "false"]
FURTHER = ["--robustness", "jpeg:50,blur:2", "--equalised", "true", *QUICK]


@pytest.fixture(scope="module")
def trained(module_path: Path, small_table: pd.DataFrame) -> Iterator[Run]:
    """A detector, and the images it was trained on as `small.csv`, in a store for several tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(module_path)
        patch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{module_path}/mlflow.db")
        patch.setenv("SYNTHDETECT_CACHE", str(module_path / "cache"))
        patch.delenv("MLFLOW_RUN_ID", raising=False)
        mlflow.set_tracking_uri(f"sqlite:///{module_path}/mlflow.db")
        small_table.to_csv("small.csv", index=False)
        assert main(["train", "--data", "small.csv", *SMALL, "--register", "small"]) == 0
        yield newest()


@pytest.fixture(scope="module")
def evaluated(trained: Run) -> tuple[Run, str]:
    """Evaluate all its splits, also perturbed and equalised; the run and its console output."""
    given = ["--model", trained.info.run_id, "--data", "small.csv", *FURTHER]
    with redirect_stdout(io.StringIO()) as printed:
        assert main(["evaluate", *given]) == 0
    return newest(), printed.getvalue()


def test_perturbed_and_equalised_images_are_compared_with_unchanged_ones(
    evaluated: tuple[Run, str],
) -> None:
    run, printed = evaluated
    assert "--robustness and --equalised: without control" in printed
    for split in ("val", "test"):
        overall = artifact(run, f"evaluation/{split}.csv").set_index("metric")
        table = artifact(run, f"evaluation/{split}_robustness.csv")
        assert table[["perturbation", "level"]].to_numpy().tolist() == [
            ["none", 0], ["jpeg", 50], ["blur", 2],
        ]  # fmt: skip
        # The images as they are have the very numbers that the evaluation gives them.
        for name in ("auc", "balanced_accuracy", "ece"):
            assert table[name][0] == overall.loc[name, "value"]
        assert (table["auc_low"][0], table["auc_high"][0]) == tuple(
            overall.loc["auc", ["low", "high"]]
        )
        generators = artifact(run, f"evaluation/{split}_robustness_generators.csv")
        assert (
            len(generators)
            == 3
            * artifact(run, f"evaluation/{split}_generators.csv")["generator"]
            .isin(generators["generator"])
            .sum()
        )
        history = MlflowClient().get_metric_history(run.info.run_id, f"{split}/robustness/jpeg/auc")
        levels = {m.step: m.value for m in history}
        assert levels == {0: table["auc"][0], 4: table["auc"][1]}  # 50 is the fourth of its levels
    conditions = artifact(run, "evaluation/conditions.csv")
    assert conditions[["split", "condition"]].to_numpy().tolist() == [
        [split, condition] for split in ("val", "test") for condition in ("raw", "equalised")
    ]
    test = conditions[conditions["split"] == "test"].reset_index()
    assert test["auc_change"][1] == pytest.approx(test["auc"][1] - test["auc"][0])
    assert run.data.metrics["test/equalised/auc"] == test["auc"][1]


def test_equalised_images_are_those_of_a_training_with_equalise(trained: Run) -> None:
    """Score by hand, with the decision in force, the squares that `equalise` makes."""
    given = ["--model", trained.info.run_id, "--data", "small.csv", "--splits", "test"]
    assert main(["evaluate", *given, *FURTHER, "--decide", "given"]) == 0
    run = newest()
    assert len(artifact(run, "evaluation/robustness.csv")) == 3  # of the one split there is
    ((_, detector, _),) = find_detectors((trained.info.run_id,))
    predictions = artifact(run, "predictions/test.csv")
    preprocess = Preprocess(detector.card.model.image_size, detector.card.geometry, 75)
    squares = np.stack([preprocess(Path(path).read_bytes()) for path in predictions["path"]])
    logits = logit(detector.score(squares))
    found = artifact(run, "evaluation/conditions.csv").iloc[1]
    expected = metrics(predictions["label"], logits, detector.card.decision.threshold)
    assert found["auc"] == pytest.approx(expected["auc"], abs=0.01)  # other batches, other ties
    assert found["ece"] == pytest.approx(expected["ece"], abs=0.01)


def test_metrics_are_bound_to_the_images_and_to_the_model(
    trained: Run, evaluated: tuple[Run, str]
) -> None:
    client = MlflowClient()
    (model,) = client.search_logged_models([trained.info.experiment_id])

    def bound(run_id: str) -> set[tuple[str, str]]:
        assert model_inputs(run_id) == [model.model_id]
        found = client.get_logged_model(model.model_id).metrics or []
        return {(m.key, str(m.dataset_name)) for m in found if m.run_id == run_id}

    keys = ("auc", "generator/realesrgan_x4plus/auc", "equalised/auc", "robustness/jpeg/auc")
    expected = {(f"{s}/{key}", f"small.csv-{s}") for s in ("val", "test") for key in keys}
    assert expected <= bound(evaluated[0].info.run_id)
    for name in (f"models:/{model.model_id}", "models:/small/1"):
        given = ["--model", name, "--data", "small.csv", "--splits", "val", *QUICK]
        assert main(["evaluate", *given]) == 0
        assert ("val/auc", "small.csv-val") in bound(newest().info.run_id)


def test_a_detectors_file_is_evaluated_without_a_model_to_bind_to(trained: Run) -> None:
    ((_, detector, _),) = find_detectors((trained.info.run_id,))
    detector.save(Path("detector.safetensors"))
    given = ["--model", "detector.safetensors", "--data", "small.csv", "--splits", "val", *QUICK]
    assert main(["evaluate", *given]) == 0
    assert model_inputs(newest().info.run_id) == []


def test_for_a_detector_only_the_band_can_be_chosen_without_decide_val(
    trained: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ["--model", trained.info.run_id, "--data", "small.csv", "--splits", "val", *QUICK]
    assert main(["evaluate", *given, "--unsure", "0.1"]) == 0
    assert "val/unsure/share" in newest().data.metrics
    before = newest().info.run_id
    for option in (["--threshold-rule", "fpr"], ["--max-fpr", "0.1"], ["--calibration", "none"]):
        assert main(["evaluate", *given, *option]) == 2
        message = capsys.readouterr().err
        assert f"{option[0]}: not used" in message
        assert "given by the model's card" in message
        assert newest().info.run_id == before
        assert not Path("evaluation/state.json").exists()
    assert main(["evaluate", *given, "--calibration", "none", "--decide", "val"]) == 0
    assert newest().data.metrics["decision/temperature"] == 1


def test_after_a_failure_to_read_the_same_command_resumes(
    trained: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """An image that could not be read is read again; scored images are not."""
    given = ["--model", trained.info.run_id, "--data", "small.csv", "--splits", "val,test", *QUICK]
    options = ["--batch-size", "8", "--workers", "0"]
    read, was_read, refused = ImageFiles.read, list[int](), {20}

    def reading(images: ImageFiles, row: int) -> bytes:
        was_read.append(row)
        if row in refused:
            raise OSError(5, "Input/output error")
        return read(images, row)

    monkeypatch.setattr(ImageFiles, "read", reading)
    for _ in range(2):
        assert main(["evaluate", *given, *options]) == 2
        message = capsys.readouterr().err
        assert "Input/output error" in message
        assert "resume" in message
    refused.clear()
    was_read.clear()
    assert main(["evaluate", *given, *options]) == 0
    assert min(was_read) == 16  # the first row of the batch that could not be read
    whole = artifact(newest(), "predictions/test.csv")
    assert main(["evaluate", *given, *options]) == 0
    pd.testing.assert_frame_equal(artifact(newest(), "predictions/test.csv"), whole)


@pytest.mark.parametrize(("strict", "left"), [(False, 4), (True, 2)])
def test_unreadable_images_in_a_journal_are_kept_unless_strict(
    trained: Run, tmp_path: Path, strict: bool, left: int
) -> None:
    ((_, detector, _),) = find_detectors((trained.info.run_id,))
    images = unlabelled("small.csv")
    Scoring(tmp_path, [detector], images, data="", batch_size=2)
    journal = tmp_path / ".partial-1.csv"
    journal.write_text('0,1.5,\n1,-2,\n2,0.5,\n3,,"Input/output error, they say"\n')
    again = Scoring(tmp_path, [detector], images, data="", batch_size=2, strict=strict)
    assert again.done == left == journal.read_text().count("\n")
    again.run(Device("cpu", "fp32", 0), lambda done, total: None)
    assert (3 in again.scores().unreadable) is not strict


@pytest.mark.parametrize(("command", "folds"), [("evaluate", 1), ("evaluate", 2), ("export", 1)])
def test_a_cross_validation_is_no_model_however_many_folds_have_finished(
    trained: Run, capsys: pytest.CaptureFixture[str], command: str, folds: int
) -> None:
    ((_, detector, _),) = find_detectors((trained.info.run_id,))
    with open_run("cv", kind="cv", tags={}) as parent:
        for fold in range(folds):
            with open_run("f", kind="fold", tags={FOLD: str(fold)}, parent=parent) as child:
                log_detector(child, detector)
    assert main([command, "--model", parent.id, "--data", "small.csv"]) == 2
    message = capsys.readouterr().err
    assert "--model: give one .safetensors or .onnx file, models:/ URI or id of a run" in message
    assert ", ".join(f"{parent.id} fold {fold}" for fold in range(folds)) in message
    assert find_detector((child.id,)).name == child.id


def test_the_report_has_what_was_audited_held_out_and_perturbed(
    evaluated: tuple[Run, str],
) -> None:
    run, _ = evaluated
    assert run.data.tags["synthdetect.audit"]
    assert "audit/findings.csv" in {
        item.path for item in MlflowClient().list_artifacts(run.info.run_id, "audit")
    }
    page = Path(
        mlflow.artifacts.download_artifacts(run_id=run.info.run_id, artifact_path="report.html")
    ).read_text()
    control = artifact(run, "evaluation/control.csv").set_index("metric").loc["auc_against_real"]
    assert control["value"] == run.data.metrics["control/auc_against_real"]
    assert f"{control['value']:.3f} [{control['low']:.3f}, {control['high']:.3f}]" in page
    assert "What was held out, and what was not" in page
    assert "contents shared with train" in page
    for title in ("Robustness", "Data audit"):
        assert f">{title}</h2>" in page
    assert "figures/test/robustness" not in page  # both are shown, not only named


def test_robustness_needs_both_classes(trained: Run, capsys: pytest.CaptureFixture[str]) -> None:
    before = len(mlflow.search_runs(output_format="list"))
    given = ["--model", trained.info.run_id, "--data", "small.csv", "--splits", "control"]
    assert main(["evaluate", *given, "--robustness", "all"]) == 2
    assert "--robustness: no split here has both classes (control)" in capsys.readouterr().err
    assert main(["evaluate", *given[:4], "--robustness", "jpg"]) == 2
    assert "--robustness: unknown perturbation(s): jpg" in capsys.readouterr().err
    assert len(mlflow.search_runs(output_format="list")) == before


@pytest.fixture(scope="module")
def flipped(trained: Run) -> Run:
    """A detector that was trained and decided under flips, and whose scores differ."""
    resnet = ["--arch", "resnet18", *SMALL[2:]]
    assert main(["train", "--data", "small.csv", *resnet, "--views", "flip"]) == 0
    return newest()


def scores(detector: Detector, predictions: pd.DataFrame) -> npt.NDArray[np.float64]:
    """Return calibrated logits, scored by hand."""
    squares = [detector.preprocess(Path(path).read_bytes()) for path in predictions["path"]]
    return np.asarray(logit(detector.score(np.stack(squares))))


def require_scores(predictions: pd.DataFrame, detector: Detector) -> None:
    """Check that predictions are a detector's under the views of its card, and no other ones."""
    other = detector.with_card(views={"flip": "single", "single": "flip"}[detector.card.views])
    assert np.abs(predictions["logit"] - scores(other, predictions)).max() > 1e-3
    np.testing.assert_allclose(predictions["logit"], scores(detector, predictions), atol=1e-4)


def test_a_training_under_views_decides_and_evaluates_under_them(flipped: Run) -> None:
    detector = find_detector((flipped.info.run_id,)).detector
    assert detector.card.views == "flip"
    val = artifact(flipped, "predictions/val.csv")
    require_scores(val, detector)
    expected = decide(DecisionOptions(), val["label"], val["raw_logit"])
    assert detector.card.decision.threshold == pytest.approx(expected.threshold, abs=1e-6)
    prior = flipped.data.metrics["decision/prior"]
    assert expected.prior == detector.card.decision.prior == prior == val["label"].mean()


def test_a_detector_is_decided_anew_under_other_views_and_logged(
    flipped: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ["--model", flipped.info.run_id, "--data", "small.csv", *QUICK, "--splits", "test"]
    before = len(mlflow.search_runs(output_format="list"))
    assert main(["evaluate", *given, "--views", "single"]) == 2
    assert "--decide val" in capsys.readouterr().err
    assert main(["evaluate", *given, "--log-model", "true"]) == 2
    assert "--log-model" in capsys.readouterr().err
    assert len(mlflow.search_runs(output_format="list")) == before
    anew = ["--views", "single", "--decide", "val", "--log-model", "true"]
    assert main(["evaluate", *given, *anew]) == 0
    run = newest()
    (old, new) = (find_detector((r.info.run_id,)).detector for r in (flipped, run))
    assert (old.card.views, new.card.views) == ("flip", "single")
    assert new.card.decision.threshold != old.card.decision.threshold
    assert new.card.provenance == {
        **old.card.provenance,
        "decided_in": run.info.run_id,
        "decided_on": "small.csv",
        "decided_on_digest": new.card.provenance["decided_on_digest"],
    }
    test = artifact(run, "predictions/test.csv")
    require_scores(test, new)
    # It answers as it was evaluated, without any further option.
    assert main(["predict", "--model", run.info.run_id, "--data", "small.csv"]) == 0
    answers = pd.read_csv("predictions/predictions.csv").set_index("image")
    np.testing.assert_allclose(answers.loc[test["path"], "logit"], test["logit"], atol=1e-4)


def test_an_evaluation_and_its_perturbed_images_use_the_views_of_the_card(flipped: Run) -> None:
    given = ["--model", flipped.info.run_id, "--data", "small.csv", *QUICK, "--splits", "test"]
    assert main(["evaluate", *given, "--equalised", "true"]) == 0
    run = newest()
    detector = find_detector((flipped.info.run_id,)).detector
    test = artifact(run, "predictions/test.csv")
    require_scores(test, detector)
    found = artifact(run, "evaluation/conditions.csv").iloc[1]
    errors = [
        metrics(test["label"], scores(seen, test), detector.card.decision.threshold)["ece"]
        for seen in (
            detector.with_card(equalise_quality=75),
            detector.with_card(equalise_quality=75, views="single"),
        )
    ]
    assert abs(errors[0] - errors[1]) > 1e-4
    assert found["ece"] == pytest.approx(errors[0], abs=1e-5)


def test_a_given_decision_is_used_under_other_views_only_if_asked_for(flipped: Run) -> None:
    given = ["--model", flipped.info.run_id, "--data", "small.csv", *QUICK, "--splits", "test"]
    assert main(["evaluate", *given, "--views", "single", "--decide", "given"]) == 0
    assert "applied under --views single" in newest().data.params["decision.from"]
    detector = find_detector((flipped.info.run_id,)).detector
    require_scores(artifact(newest(), "predictions/test.csv"), detector.with_card(views="single"))


def test_a_prior_shifts_the_probabilities_of_detectors_and_tables(
    trained: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    table = write_table(Path("t.csv"))
    for given in (
        ["--model", trained.info.run_id, "--data", "small.csv", *QUICK, "--splits", "test"],
        ["--predictions", "t.csv"],
    ):
        assert main(["evaluate", *given]) == 0
        plain = artifact(newest(), "predictions/test.csv")["logit"]
        own = newest().data.metrics["decision/prior"]
        assert main(["evaluate", *given, "--prior", "0.9"]) == 0
        run = newest()
        shifted = artifact(run, "predictions/test.csv")["logit"]
        np.testing.assert_allclose(shifted - plain, np.log(9) - logit(own), atol=1e-6)
        assert run.data.metrics["decision/prior"] == 0.9
        assert "prior of 0.9" in run.data.params["decision.from"]
    table.assign(threshold=0.7).to_csv("own.csv", index=False)
    assert main(["evaluate", "--predictions", "own.csv", "--prior", "0.9"]) == 2
    message = capsys.readouterr().err
    assert "--prior" in message
    assert "--decide val" in message

"""Tests of `synthdetect export`: the files, the run, and the use of the exported detector."""

import base64
import copy
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import numpy.typing as npt
import onnx
import pandas as pd
import pytest
import torch
import yaml
from mlflow.entities import Run
from mlflow.tracking import MlflowClient

from synthdetect.cli import main
from synthdetect.datasets.index import index
from synthdetect.datasets.manifest import Manifest, load
from synthdetect.detectors.card import Card
from synthdetect.detectors.detector import Detector
from synthdetect.detectors.engines.convert import to_graph
from synthdetect.detectors.engines.exported import load_exported
from synthdetect.evaluation.decision import decide
from synthdetect.evaluation.options import DecisionOptions
from synthdetect.system.errors import UserError
from synthdetect.tracking.models import log_detector
from synthdetect.tracking.opening import open_run
from synthdetect.tracking.tags import CONFIG, MANIFEST
from tests.conftest import ROOT


@pytest.fixture(scope="module")
def folder(module_path: Path, detector: Detector, small_table: pd.DataFrame) -> Iterator[Path]:
    """A working folder with a store, a detector and data."""
    detector.save(module_path / "detector.safetensors")
    small_table.to_csv(module_path / "small.csv", index=False)
    before = mlflow.get_tracking_uri()
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(module_path)
        patch.setenv("SYNTHDETECT_CACHE", str(module_path / "cache"))
        patch.delenv("MLFLOW_RUN_ID", raising=False)
        uri = f"sqlite:///{module_path}/mlflow.db"
        patch.setenv("MLFLOW_TRACKING_URI", uri)
        mlflow.set_tracking_uri(uri)
        yield module_path
    mlflow.set_tracking_uri(before)


def export(*options: str) -> int:
    return main(["export", "--model=detector.safetensors", "--data=small.csv", *options])


def latest() -> Run:
    return MlflowClient().search_runs(["0"], order_by=["start_time DESC"], max_results=1)[0]


@pytest.fixture(scope="module")
def exported(folder: Path) -> tuple[Path, Run]:
    """The detector exported to OpenVINO in fp32, and the run."""
    assert export("--precision=fp32", "--output=exports", "--register=fast") == 0
    return folder / "exports" / "resnet18-openvino-fp32.onnx", latest()


def test_the_file_is_written_with_the_result_of_the_comparison(
    exported: tuple[Path, Run], small_table: pd.DataFrame
) -> None:
    file, run = exported
    facts = json.loads(file.with_suffix(".parity.json").read_text())
    assert facts["graph_sha256"] == load_exported(file).card.weights_sha256
    assert (
        facts["weights_sha256"] == Detector.load(Path("detector.safetensors")).card.weights_sha256
    )
    val = small_table[small_table["split"] == "val"]
    assert facts["compared_on"]["images"] == facts["images"] == len(val)
    assert "calibrated_on" not in facts
    assert facts["logit_change_max"] < 1e-3
    assert (facts["auc_change"], facts["label_changes"]) == (0, 0)
    assert {"version.onnx", "version.openvino", "version.torch"} <= set(facts)
    assert run.info.status == "FINISHED"
    assert run.data.tags["synthdetect.kind"] == "export"
    assert run.data.metrics["parity/images"] == len(val)
    assert mlflow.artifacts.load_dict(f"runs:/{run.info.run_id}/parity.json") == facts
    assert sorted(path.name for path in file.parent.iterdir()) == [
        "resnet18-openvino-fp32.onnx", "resnet18-openvino-fp32.parity.json",
    ]  # fmt: skip


def test_predict_accepts_the_file_the_run_and_the_registered_model(
    exported: tuple[Path, Run],
) -> None:
    file, run = exported
    models = f"detector.safetensors,{file},{run.info.run_id},models:/fast@champion"
    assert main(["predict", f"--model={models}", "--data=small.csv"]) == 0
    table = pd.read_csv("predictions/predictions.csv")
    for number in (2, 3, 4):
        np.testing.assert_allclose(
            table[f"probability_{number}"], table["probability_1"], atol=1e-5
        )
    cards = [m["card"] for m in json.loads(Path("predictions/models.json").read_text())["models"]]
    assert [card["engine"] for card in cards] == ["torch", "openvino", "openvino", "openvino"]


def test_the_model_is_served_by_its_engine_which_is_a_requirement(
    exported: tuple[Path, Run], small_table: pd.DataFrame
) -> None:
    paths = [ROOT / path for path in small_table["path"].head(5)]
    served = mlflow.pyfunc.load_model("models:/fast@champion")
    texts = [base64.b64encode(path.read_bytes()).decode() for path in paths]
    answers = served.predict(pd.DataFrame({"image": texts}))
    detector = Detector.load(Path("detector.safetensors"))
    squares = np.stack([detector.preprocess(path.read_bytes()) for path in paths])
    np.testing.assert_allclose(answers["probability"], detector.score(squares), atol=1e-5)
    assert (answers["threshold"] == detector.card.decision.threshold).all()
    file = mlflow.artifacts.download_artifacts("models:/fast@champion/requirements.txt")
    names = {line.partition("==")[0] for line in Path(file).read_text().splitlines()}
    assert {"onnx", "openvino", "torch"} <= names


def test_evaluate_accepts_it_without_explanations(
    exported: tuple[Path, Run], capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--data=small.csv", "--splits=val", "--spectra=false"]
    assert main(["evaluate", f"--model={exported[0]}", *options]) == 2
    assert "give --explain 0" in capsys.readouterr().err
    assert main(["evaluate", f"--model={exported[0]}", "--explain=0", *options]) == 0
    auc = exported[1].data.metrics["parity/auc_torch"]
    assert latest().data.metrics["val/auc"] == pytest.approx(auc)


def test_int8_is_calibrated_on_training_images_and_compared_on_validation_images(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--engine=onnxruntime", "--calibration-images=2", "--parity-images=15"]
    assert export(*options, "--output=none", "--max-auc-change=0") == 1
    run = latest()
    facts = mlflow.artifacts.load_dict(f"runs:/{run.info.run_id}/parity.json")
    assert (facts["calibrated_on"]["split"], facts["calibrated_on"]["images"]) == ("train", 2)
    assert (facts["compared_on"]["split"], facts["images"]) == ("val", 15)
    assert facts["auc_change"] != 0
    output = capsys.readouterr()
    assert f"{facts['auc_engine']:.4f}" in output.out
    assert "--max-auc-change" in output.err
    assert list(Path("none").iterdir()) == []
    assert run.info.status == "FAILED"


# --- images of the training run


LAX = [
    "--max-auc-change=1",
    "--max-label-changes=1",
    "--max-logit-shift=99",
    "--max-logit-change=99",
]
"""Limits that an untrained detector stays within, whose scores are all alike."""

RULE = DecisionOptions(threshold_rule="fpr", max_fpr=0.2)
"""How the decision of a training run is made."""

INT8 = ["--engine=onnxruntime", "--output=own", *LAX]


@pytest.fixture(scope="module")
def indexed(folder: Path) -> Manifest:
    """The data, with splits of their own."""
    return index(load("small.csv"))


def trained_on(manifest: Manifest, detector: Detector) -> str:
    """Log and save the detector as a training run on these images does; return the run's id."""
    with open_run("a training", kind="train", tags={}) as run:
        run.log_table(manifest.table, MANIFEST)
        digest = manifest.digest()
        run.log_json({"options": RULE.to_json(), "digest": digest}, CONFIG)
        known = {"run_id": run.id, "data": manifest.name, "data_digest": digest}
        card = Card(**{**vars(detector.card), "provenance": known})
        made = Detector(detector.network, card)
        log_detector(run, made)
        made.save(Path("own.safetensors"))
    return run.id


def used() -> tuple[dict[str, Any], Run]:
    """Recorded facts of the latest export, and its run."""
    run = latest()
    return dict(mlflow.artifacts.load_dict(f"runs:/{run.info.run_id}/parity.json")), run


def resplit(manifest: Manifest, **splits: str) -> Manifest:
    """The same images with some splits renamed."""
    table = manifest.table
    return manifest.with_table(table.assign(split=table["split"].replace(splits)))


def test_the_images_and_splits_are_those_of_the_training_run(
    indexed: Manifest, detector: Detector, capsys: pytest.CaptureFixture[str]
) -> None:
    """A fold of a cross-validation has other splits than the data."""
    fold = resplit(indexed, train="val", val="train")
    run_id = trained_on(fold, detector)
    for model in (run_id, "own.safetensors"):
        assert main(["export", f"--model={model}", "--calibration-images=999", *INT8]) == 0
        facts, run = used()
        for part, split in (("calibrated_on", "train"), ("compared_on", "val")):
            images = fold.split(split)
            assert facts[part] == {"data": "small.csv", "split": split, "images": len(images),
                                   "digest": images.digest()}  # fmt: skip
        assert facts["doubts"] == []
        assert run.data.tags["synthdetect.data"] == "small.csv"
    assert "data small.csv, split as in training" in capsys.readouterr().out


def test_a_final_fit_has_no_val_split_and_is_compared_on_test(
    indexed: Manifest, detector: Detector
) -> None:
    trained_on(resplit(indexed, val="train"), detector)
    assert main(["export", "--model=own.safetensors", *INT8]) == 0
    facts, _ = used()
    assert facts["compared_on"]["split"] == "test"
    assert "all labelled images" in facts["decision"]["kept"]
    assert facts["doubts"] == []


def test_images_other_than_those_of_the_training_run_cause_warnings(
    indexed: Manifest, detector: Detector, capsys: pytest.CaptureFixture[str]
) -> None:
    trained_on(resplit(indexed, train="val", val="train"), detector)
    given = ["export", "--model=own.safetensors", "--data=small.csv", *INT8]
    assert main(given) == 0
    facts, _ = used()
    train, val = len(indexed.split("train")), len(indexed.split("val"))
    assert facts["doubts"] == [
        f"{train} of {train} calibration images are not training images of the detector",
        f"{train} of {train} calibration images validate or test the detector",
        f"{val} of {val} images to compare on are training images of the detector",
    ]
    shown = " ".join(capsys.readouterr().out.split())
    assert all(f"--data: {doubt}." in shown for doubt in facts["doubts"])
    trained_on(indexed, detector)
    assert main(given) == 0
    assert used()[0]["doubts"] == []


def test_without_a_training_run_images_must_be_given_and_cause_a_warning(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["export", "--model=detector.safetensors"]) == 2
    message = capsys.readouterr().err
    assert "--data" in message
    assert "(abc)" in message
    assert "MLFLOW_TRACKING_URI" in message
    assert export(*INT8) == 0
    (doubt,) = used()[0]["doubts"]
    assert "is not known" in doubt
    assert "run that made it (abc) is not in" in used()[0]["decision"]["kept"]


# --- the decision of the exported detector


@pytest.fixture(scope="module")
def decided(indexed: Manifest, detector: Detector) -> Detector:
    """The detector with logits that are far apart, decided on the validation images."""
    network = copy.deepcopy(detector.network)
    with torch.no_grad():
        network.head.weight *= 10
    spread = Detector(network, detector.card)
    val = indexed.split("val")
    decision = decide(RULE, val.table["label"], raw(spread, val))
    return spread.with_card(decision=replace(decision, unsure=0.01))


def raw(detector: Detector, images: Manifest) -> npt.NDArray[np.float64]:
    """Return uncalibrated logits under the detector's views."""
    squares = np.stack([detector.preprocess(Path(f).read_bytes()) for f in images.files()])
    with torch.inference_mode():
        return detector.scorer(torch.from_numpy(squares).permute(0, 3, 1, 2)).double().numpy()


def shift_the_engine(monkeypatch: pytest.MonkeyPatch, by: float) -> None:
    """Add a number to the bias of the copy of the network that is exported."""

    def shifted(detector: Detector) -> onnx.ModelProto:
        network = copy.deepcopy(detector.network)
        with torch.no_grad():
            network.head.bias += by
        return to_graph(Detector(network, detector.card))

    monkeypatch.setattr("synthdetect.runs.export.to_graph", shifted)


BF16 = ["export", "--model=own.safetensors", "--engine=openvino", "--precision=bf16"]


def test_an_engine_whose_logits_are_shifted_keeps_its_auc_and_is_refused(
    indexed: Manifest, decided: Detector, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    trained_on(indexed, decided)
    shift_the_engine(monkeypatch, 40.0)
    assert main([*BF16, "--output=shifted", "--max-auc-change=0.05"]) == 1
    facts, run = used()
    assert abs(facts["auc_change"]) <= 0.05
    assert facts["label_changes"] > 0.2
    slope = decided.card.decision.calibration.slope
    assert facts["logit_shift"] == pytest.approx(40 * slope, rel=0.2)
    assert run.info.status == "FAILED"
    message = capsys.readouterr().err
    assert "--max-label-changes" in message
    assert "--max-logit-shift" in message
    assert "--max-auc-change" not in message
    assert list(Path("shifted").iterdir()) == []


def test_the_decision_is_made_anew_by_the_scores_of_the_engine(
    indexed: Manifest, decided: Detector, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained_on(indexed, decided.with_card(views="flip"))
    shift_the_engine(monkeypatch, 40.0)
    assert main([*BF16, "--output=anew", *LAX, "--parity-images=10"]) == 0
    facts, run = used()
    exported = load_exported(Path("anew/resnet18-openvino-bf16.onnx"))
    val = indexed.split("val")  # all of them, and not only those that are compared
    expected = decide(RULE, val.table["label"], raw(exported, val))
    found = exported.card.decision
    assert found.threshold == pytest.approx(expected.threshold, abs=1e-6)
    assert found.calibration.slope == pytest.approx(expected.calibration.slope, rel=1e-6)
    assert (found.unsure, exported.card.views) == (0.01, "flip")
    assert facts["decision"]["kept"] == ""
    assert facts["decision"]["torch"]["threshold"] == decided.card.decision.threshold
    assert facts["decision"]["engine"]["threshold"] == found.threshold
    assert facts["decided_on"]["images"] == len(val)
    known = exported.card.provenance
    assert known["decided_by"] == "openvino bf16"
    assert known["decided_on_digest"] == val.digest()
    assert known["decision_of_torch"]["threshold"] == decided.card.decision.threshold
    assert run.data.params["decision.from"].startswith("chosen by the scores of openvino bf16")
    assert run.data.metrics["decision/threshold"] == found.threshold


def test_a_decision_whose_images_cannot_be_had_is_kept_and_recorded_as_such(
    indexed: Manifest, decided: Detector, capsys: pytest.CaptureFixture[str]
) -> None:
    trained_on(indexed, decided)
    rows = pd.read_csv("small.csv", keep_default_na=False)
    rows.drop(index=rows.index[rows["split"] == "val"][0]).to_csv("fewer.csv", index=False)
    kept = {
        "--data=fewer.csv": f"1 of the {len(indexed.split('val'))} validation images",
        "--decide=given": "--decide given",
    }
    for option, reason in kept.items():
        assert main([*BF16, option, "--output=kept", *LAX]) == 0
        facts, run = used()
        assert reason in facts["decision"]["kept"]
        assert "decided_on" not in facts
        card = load_exported(Path("kept/resnet18-openvino-bf16.onnx")).card
        assert card.decision == decided.card.decision
        assert reason in card.provenance["decision_kept"]
        assert run.data.params["decision.from"].startswith("kept")
        assert f"decision kept, because {reason[:10]}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("gone", "reason"),
    [("val", "val images of both classes"), ("train", "train images")],
)
def test_missing_images_of_the_training_run_are_an_error(
    indexed: Manifest, detector: Detector, gone: str, reason: str,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    table = indexed.table
    hashes = table["sha256"].where(table["split"] != gone, "another")
    trained_on(indexed.with_table(table.assign(sha256=hashes)), detector)
    assert main(["export", "--model=own.safetensors", *INT8]) == 2
    assert reason in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (["--engine=onnxruntime", "--precision=bf16"], "onnxruntime has fp32, int8"),
        (["--model=detector.safetensors,detector.safetensors"], "got detector"),
        (["--parity-images=0"], "--parity-images"),
        (["--data=one_class.csv"], "both classes"),
    ],
)
def test_options_that_do_not_fit_are_an_error_before_a_run_is_opened(
    folder: Path, options: list[str], reason: str, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = pd.read_csv("small.csv", keep_default_na=False)
    rows[(rows["split"] != "val") | (rows["label"] == "real")].to_csv("one_class.csv", index=False)
    runs = len(MlflowClient().search_runs(["0"]))
    assert export(*options) == 2
    assert reason in capsys.readouterr().err
    assert len(MlflowClient().search_runs(["0"])) == runs


def test_an_exported_detector_cannot_be_exported(
    exported: tuple[Path, Run], capsys: pytest.CaptureFixture[str]
) -> None:
    assert export(f"--model={exported[0]}") == 2
    assert "exported already" in capsys.readouterr().err


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_a_detector_that_scores_crops_is_exported_for_their_size(
    indexed: Manifest, decided: Detector, precision: str
) -> None:
    cropping = decided.with_card(views="grid")
    trained_on(indexed, cropping)
    command = ["export", "--model=own.safetensors", "--engine=onnxruntime", *LAX]
    output = f"crops-{precision}"
    assert main([*command, f"--precision={precision}", f"--output={output}"]) == 0
    exported = load_exported(Path(f"{output}/resnet18-onnxruntime-{precision}.onnx"))
    assert exported.card.seen_size == decided.card.model.image_size // 2
    val = indexed.split("val")
    tolerance = 1e-4 if precision == "fp32" else 0.05
    np.testing.assert_allclose(raw(exported, val), raw(cropping, val), rtol=tolerance, atol=0.01)
    with pytest.raises(UserError, match="export the original under single"):
        exported.card.require_views("single")


def test_a_folder_for_the_hub_has_a_card_with_what_was_measured_and_is_read_as_a_model(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with open_run("trained", kind="train", tags={"synthdetect.data": "small.csv"}) as trained:
        model = log_detector(trained, Detector.load(Path("detector.safetensors")))
        measured = pd.DataFrame(
            [("auc", 0.75, 0.5, 0.9)], columns=["metric", "value", "low", "high"]
        )
        trained.log_table(measured, "evaluation/test.csv")
        trained.log_metrics({"test/auc": 0.75}, model_id=model.model_id)
    asked = ["export", "--to=hub", f"--model={trained.id}", "--license=mit", "--output=hubs"]
    assert main(asked) == 0
    made = folder / "hubs" / "resnet18-hub"
    metadata = yaml.safe_load((made / "README.md").read_text().split("---\n")[1])
    assert metadata["license"] == "mit"
    (result,) = metadata["model-index"][0]["results"]
    assert result["dataset"]["name"] == "small.csv (test)"
    assert result["metrics"][0]["value"] == 0.75
    assert "hf upload" in capsys.readouterr().out
    assert main(["predict", f"--model={made}", "--data=small.csv", "--output=scored"]) == 0
    scored = pd.read_csv(folder / "scored" / "predictions.csv")
    assert scored["probability"].notna().all()
    assert main([*asked, "--precision=fp32"]) == 2
    assert "--precision: not used with --to hub" in capsys.readouterr().err
    assert main(["export", "--model=detector.safetensors", "--license=mit"]) == 2
    assert main([*asked, "--license=Mine, all mine"]) == 2

"""Tests of `synthdetect export`: the files, the run, and the use of the exported detector."""

import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
import pytest
from mlflow.entities import Run
from mlflow.tracking import MlflowClient

from synthdetect.cli import main
from synthdetect.datasets.index import index
from synthdetect.datasets.manifest import Manifest, load
from synthdetect.detectors.card import Card
from synthdetect.detectors.detector import Detector
from synthdetect.detectors.engines.exported import load_exported
from synthdetect.tracking.models import log_detector
from synthdetect.tracking.opening import open_run
from synthdetect.tracking.tags import MANIFEST
from tests.conftest import ROOT


@pytest.fixture(scope="module")
def folder(
    tmp_path_factory: pytest.TempPathFactory, detector: Detector, small_table: pd.DataFrame
) -> Iterator[Path]:
    """A working folder with a store, a detector and data."""
    folder = tmp_path_factory.mktemp("work")
    detector.save(folder / "detector.safetensors")
    small_table.to_csv(folder / "small.csv", index=False)
    before = mlflow.get_tracking_uri()
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("SYNTHDETECT_CACHE", str(folder / "cache"))
        patch.delenv("MLFLOW_RUN_ID", raising=False)
        uri = f"sqlite:///{folder}/mlflow.db"
        patch.setenv("MLFLOW_TRACKING_URI", uri)
        mlflow.set_tracking_uri(uri)
        yield folder
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
    assert (facts["auc_change"], facts["same_answer"]) == (0, 1)
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
    assert main(["predict", f"--model={models}", "--data=small.csv", "--tta=flip"]) == 0
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
    assert export(*options, "--output=none", "--tolerance=0") == 1
    run = latest()
    facts = mlflow.artifacts.load_dict(f"runs:/{run.info.run_id}/parity.json")
    assert (facts["calibrated_on"]["split"], facts["calibrated_on"]["images"]) == ("train", 2)
    assert (facts["compared_on"]["split"], facts["images"]) == ("val", 15)
    assert facts["auc_change"] != 0
    output = capsys.readouterr()
    assert f"{facts['auc_engine']:.4f}" in output.out
    assert "--tolerance" in output.err
    assert list(Path("none").iterdir()) == []
    assert run.info.status == "FAILED"


# --- images of the training run


INT8 = ["--engine=onnxruntime", "--output=own", "--tolerance=1"]


@pytest.fixture(scope="module")
def indexed(folder: Path) -> Manifest:
    """The data, with splits of their own."""
    return index(load("small.csv"))


def trained_on(manifest: Manifest, detector: Detector) -> str:
    """Log and save the detector as a training run on these images does; return the run's id."""
    with open_run("a training", kind="train", tags={}) as run:
        run.log_table(manifest.table, MANIFEST)
        digest = manifest.digest()
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
    assert main(["export", "--model=own.safetensors", *INT8, "--precision=fp32"]) == 0
    facts, _ = used()
    assert facts["compared_on"]["split"] == "test"
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

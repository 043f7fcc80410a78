"""`synthdetect export`: the file, what stands beside it, the run, and what then computes."""

import base64
import json
from collections.abc import Iterator
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
import pytest
from mlflow.entities import Run
from mlflow.tracking import MlflowClient

from synthdetect.cli import main
from synthdetect.detector import Detector
from synthdetect.engines.exported import load_exported
from tests.conftest import ROOT


@pytest.fixture(scope="module")
def folder(
    tmp_path_factory: pytest.TempPathFactory, detector: Detector, small_table: pd.DataFrame
) -> Iterator[Path]:
    """A working folder with a store, a detector's file and data."""
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
    """In floating point for OpenVINO."""
    assert export("--precision=fp32", "--output=exports", "--register=fast") == 0
    return folder / "exports" / "resnet18-openvino-fp32.onnx", latest()


def test_the_file_stands_beside_what_was_measured(
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


def test_predict_takes_the_file_the_run_or_the_registered_model(
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


def test_the_model_is_served_by_its_engine_and_names_it_among_its_requirements(
    exported: tuple[Path, Run], small_table: pd.DataFrame
) -> None:
    paths = [ROOT / path for path in small_table["path"].head(5)]
    served = mlflow.pyfunc.load_model("models:/fast@champion")
    texts = [base64.b64encode(path.read_bytes()).decode() for path in paths]
    answers = served.predict(pd.DataFrame({"image": texts}))
    detector = Detector.load(Path("detector.safetensors"))
    squares = np.stack([detector.preprocess(path.read_bytes()) for path in paths])
    np.testing.assert_allclose(answers["probability"], detector.score(squares), atol=1e-5)
    assert (answers["threshold"] == detector.card.threshold).all()
    file = mlflow.artifacts.download_artifacts("models:/fast@champion/requirements.txt")
    names = {line.partition("==")[0] for line in Path(file).read_text().splitlines()}
    assert {"onnx", "openvino", "torch"} <= names


def test_evaluate_takes_it_if_it_need_not_explain(
    exported: tuple[Path, Run], capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--data=small.csv", "--splits=val", "--spectra=false"]
    assert main(["evaluate", f"--model={exported[0]}", *options]) == 2
    assert "give --explain 0" in capsys.readouterr().err
    assert main(["evaluate", f"--model={exported[0]}", "--explain=0", *options]) == 0
    auc = exported[1].data.metrics["parity/auc_torch"]
    assert latest().data.metrics["val/auc"] == pytest.approx(auc)


def test_eight_bits_are_calibrated_on_training_images_and_judged_on_validation(
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
    assert "more than 0 apart. Nothing is exported" in output.err
    assert list(Path("none").iterdir()) == []
    assert run.info.status == "FAILED"


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (["--engine=onnxruntime", "--precision=bf16"], "onnxruntime has fp32, int8"),
        (["--model=detector.safetensors,detector.safetensors"], "got 2"),
        (["--parity-images=0"], "--parity-images"),
        (["--data=one_class.csv"], "both classes"),
    ],
)
def test_what_does_not_fit_is_said_before_a_run_is_opened(
    folder: Path, options: list[str], reason: str, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = pd.read_csv("small.csv", keep_default_na=False)
    rows[(rows["split"] != "val") | (rows["label"] == "real")].to_csv("one_class.csv", index=False)
    runs = len(MlflowClient().search_runs(["0"]))
    assert export(*options) == 2
    assert reason in capsys.readouterr().err
    assert len(MlflowClient().search_runs(["0"])) == runs


def test_an_exported_detector_is_not_exported_again(
    exported: tuple[Path, Run], capsys: pytest.CaptureFixture[str]
) -> None:
    assert export(f"--model={exported[0]}") == 2
    assert "exported already" in capsys.readouterr().err

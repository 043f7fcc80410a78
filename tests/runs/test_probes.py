"""Probes as architectures like any other: trained, predicted, exported, served, cross-validated."""

import base64
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from safetensors.torch import load_file

from synthdetect.cli import main
from synthdetect.models.spec import PROBES
from synthdetect.serving.model import ServedDetector
from synthdetect.tracking.detectors import find_detector
from tests.conftest import artifact, newest

NETWORK = ["--arch=timm:test_efficientnet", "--image-size=32", "--weights=none", "--device=cpu"]
PROBE = [*NETWORK, "--recipe=probe", "--geometry=resize", "--neighbours=5", "--batch-size=8"]


@pytest.mark.parametrize("probe", PROBES)
def test_a_probe_gives_the_same_scores_in_training_prediction_export_and_serving(
    workspace: Path, small_manifest: Path, probe: str
) -> None:
    epochs = 1 if probe == "knn" else 3
    given = [f"--data={small_manifest}", f"--probe={probe}", f"--epochs={epochs}", "--lr=1e-2"]
    assert main(["train", *PROBE, *given]) == 0
    trained = newest("train")
    params = trained.data.params
    assert params["model.probe"] == probe
    assert {params[f"augment.{name}"] for name in ("hflip", "jitter", "blur")} == {"0.0"}
    wanted = artifact(trained, "predictions/test.csv")
    assert np.ptp(wanted["raw_logit"]) > 1e-3  # else any scores would be alike
    detector = find_detector((trained.info.run_id,)).detector
    contents = [Path(path).read_bytes() for path in wanted["path"]]
    squares = np.stack([detector.preprocess(content) for content in contents])
    assert detector.score(squares) == pytest.approx(wanted["probability"], abs=1e-4)
    request = pd.DataFrame({"image": [base64.b64encode(c).decode() for c in contents]})
    served = ServedDetector(detector).predict(None, request)
    assert served["probability"].to_numpy() == pytest.approx(wanted["probability"], abs=1e-4)

    names = [trained.info.run_id]
    for engine in ("onnxruntime", "openvino"):
        options = [f"--engine={engine}", "--precision=fp32", f"--output={engine}"]
        assert main(["export", f"--model={names[0]}", *options]) == 0
        names += [str(file) for file in Path(engine).glob("*.onnx")]
    assert len(names) == 3
    wanted[["path"]].to_csv("test.csv", index=False)
    assert main(["predict", f"--model={','.join(names)}", "--data=test.csv"]) == 0
    table = pd.read_csv("predictions/predictions.csv").set_index("image").loc[wanted["path"]]
    for number in range(1, len(names) + 1):
        found = table[f"probability_{number}"].to_numpy()
        np.testing.assert_allclose(found, wanted["probability"], atol=1e-4)


def test_features_are_computed_once_for_a_run_of_their_own_and_all_folds(
    workspace: Path, small_manifest: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = [
        "features",
        *NETWORK,
        f"--data={small_manifest}",
        "--output=made/features.safetensors",
    ]
    assert main(command) == 0
    first = newest("features")
    images = len(pd.read_csv(small_manifest))
    assert first.data.metrics["features/computed"] == images
    assert first.data.metrics["features/cached"] == 0
    assert f"{images} computed, 0 cached" in capsys.readouterr().out
    values = load_file("made/features.safetensors")["features"]
    rows = pd.read_csv("made/features.csv")
    assert len(rows) == len(values) == images
    assert values.shape[1] == first.data.metrics["features/length"]

    assert main(["cv", *PROBE, f"--data={small_manifest}", "--epochs=2", "--folds=2"]) == 0
    assert newest("cv").info.status == "FINISHED"
    assert main(["features", *NETWORK, f"--data={small_manifest}"]) == 0
    again = newest("features").data
    # Each fold starts from random weights of its own; the first ones are still known.
    assert again.metrics["features/computed"] == 0
    assert again.params["features.backbone_sha256"] == first.data.params["features.backbone_sha256"]


def test_a_file_of_another_kind_is_refused_before_anything_is_computed(
    workspace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["features", *NETWORK, "--output=features.csv"]) == 2
    assert "--output features.csv: give a name that ends in .safetensors" in capsys.readouterr().err
    Path("mine.csv").write_text("something else")
    assert main(["features", *NETWORK, "--output=mine.safetensors"]) == 2
    assert "mine.csv, which would list its images, exists" in capsys.readouterr().err
    assert Path("mine.csv").read_text() == "something else"

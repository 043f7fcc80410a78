"""Test that a detector with any front-end gives the same scores wherever it is used."""

import base64
import json
from dataclasses import replace
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
import pytest

from synthdetect.cli import main
from synthdetect.detectors.detector import Detector
from synthdetect.models.networks import Network, build
from synthdetect.models.spec import FRONT_ENDS
from synthdetect.serving.model import ServedDetector
from synthdetect.tracking.detectors import find_detector
from tests.conftest import artifact, newest

TINY = ["--arch=resnet18", "--image-size=32", "--batch-size=8", "--epochs=2", "--lr=1e-3",
        "--weights=none", "--device=cpu"]  # fmt: skip
ENGINES = ("onnxruntime", "openvino")


# Of every front-end, tests/detectors/engines compare the exported network with the one of torch.
@pytest.mark.parametrize("front_end", ["npr", "dct"])
def test_a_front_end_gives_the_same_scores_in_training_prediction_export_and_serving(
    workspace: Path, small_manifest: Path, front_end: str
) -> None:
    data = f"--data={small_manifest}"
    assert main(["train", data, *TINY, f"--front-end={front_end}"]) == 0
    trained = newest("train")
    assert trained.data.params["model.front_end"] == front_end
    wanted = artifact(trained, "predictions/test.csv")
    assert np.ptp(wanted["raw_logit"]) > 0.1  # else any scores would be alike

    # The logged detector has the front-end, without which its scores differ.
    detector = find_detector((trained.info.run_id,)).detector
    assert detector.card.model.front_end == front_end
    assert isinstance(detector.network, Network)
    assert isinstance(detector.network.front_end, FRONT_ENDS[front_end].load())
    detector.save(Path("detector.safetensors"))
    contents = [Path(path).read_bytes() for path in wanted["path"]]
    squares = np.stack([detector.preprocess(content) for content in contents])
    assert detector.score(squares) == pytest.approx(wanted["probability"], abs=1e-5)
    card = detector.card
    other = build(replace(card.model, front_end="rgb" if front_end == "npr" else "npr"))
    if other.front_end.channels == detector.network.front_end.channels:
        other.load_state_dict(detector.network.state_dict())
        others = Detector(other, card).score(squares)
        assert np.abs(others - wanted["probability"]).max() > 1e-3

    files = {}
    for engine in ENGINES:
        options = [f"--engine={engine}", "--precision=fp32", f"--output={engine}"]
        assert main(["export", f"--model={trained.info.run_id}", *options]) == 0
        (files[engine],) = Path(engine).glob("*.onnx")
        facts = json.loads(files[engine].with_suffix(".parity.json").read_text())
        assert facts["logit_change_max"] < 1e-3
        assert (facts["auc_change"], facts["label_changes"]) == (0, 0)

    names = ["detector.safetensors", *map(str, files.values()), trained.info.run_id]
    wanted[["path"]].to_csv("test.csv", index=False)
    assert main(["predict", f"--model={','.join(names)}", "--data=test.csv"]) == 0
    table = pd.read_csv("predictions/predictions.csv").set_index("image").loc[wanted["path"]]
    for number in range(1, len(names) + 1):
        found = table[f"probability_{number}"].to_numpy()
        np.testing.assert_allclose(found, wanted["probability"], atol=1e-5)
    cards = [model["card"] for model in json.loads(Path("predictions/models.json").read_text())
             ["models"]]  # fmt: skip
    assert [card["engine"] for card in cards] == ["torch", *ENGINES, "torch"]
    assert {card["model"]["front_end"] for card in cards} == {front_end}

    request = pd.DataFrame({"image": [base64.b64encode(c).decode() for c in contents]})
    model = trained.outputs.model_outputs[0].model_id if trained.outputs else ""
    logged = mlflow.pyfunc.load_model(f"models:/{model}").predict(request)
    served = ServedDetector(Detector.load(Path("detector.safetensors"))).predict(None, request)
    for answers in (logged, served):
        np.testing.assert_allclose(answers["probability"], wanted["probability"], atol=1e-5)

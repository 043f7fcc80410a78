"""The recipe of the documentation: Spark scores images with the logged model, as predict does."""

import os
import subprocess
import sys
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
import pytest

from synthdetect import cli
from synthdetect.tracking.models import log_detector
from synthdetect.tracking.opening import open_run
from tests.conftest import ROOT
from tests.runs.test_prediction import picture, save


@pytest.mark.long
def test_spark_gives_the_scores_of_predict(workspace: Path) -> None:
    images = workspace / "images"
    images.mkdir()
    for number in range(5):
        (images / f"{number}.png").write_bytes(picture(number))
    saved = save(workspace / "detector.safetensors", 0)
    assert cli.main(["predict", f"--model={saved.path}", f"--data={images}", "--workers=0"]) == 0
    expected = pd.read_csv("predictions/predictions.csv").set_index("image")
    with open_run("logged", kind="train", tags={}) as run:
        model = log_detector(run, saved.detector)
    command = [sys.executable, str(ROOT / "docs" / "spark_scoring.py"), f"models:/{model.model_id}",
               str(images), str(workspace / "scores.parquet")]  # fmt: skip
    environment = {
        **os.environ,
        "MLFLOW_TRACKING_URI": mlflow.get_tracking_uri(),
        "PYTHONPATH": str(ROOT),
        "SPARK_LOCAL_IP": "127.0.0.1",
    }
    result = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=900)
    assert result.returncode == 0, result.stderr
    found = pd.read_parquet(workspace / "scores.parquet")
    found.index = pd.Index([Path(path).name for path in found["path"]])
    found = found.loc[expected.index]
    np.testing.assert_allclose(found["probability"], expected["probability"], atol=1e-6)
    assert (found["threshold"] == saved.threshold).all()
    # By its own probability: the threshold of this detector is the score of one of the images.
    called = np.where(found["probability"] >= saved.threshold, "synthetic", "real")
    assert found["label"].tolist() == called.tolist()

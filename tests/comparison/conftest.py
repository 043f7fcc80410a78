"""A store with two detectors, one of which is right about every image, and their evaluations."""

import io
import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import mlflow
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from synthdetect.cli import main
from synthdetect.detectors.card import Card
from synthdetect.detectors.detector import Detector
from synthdetect.evaluation.decision import Decision
from synthdetect.models.spec import ModelSpec
from synthdetect.tracking.models import log_detector, register
from synthdetect.tracking.opening import open_run
from tests.conftest import copy_store, newest
from tests.detectors.helpers import varied_network

SIZE, IMAGES = 32, 48


class Made(NamedTuple):
    """What the fixture `made` has.

    Attributes:
        good, bad: The runs that logged the detectors, as trainings do.
        of_good, of_bad: The runs that evaluated them.
    """

    good: str
    bad: str
    of_good: str
    of_bad: str


def picture(number: int) -> bytes:
    noise = np.random.default_rng(number).integers(0, 256, (SIZE, SIZE, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(noise).save(file, "PNG")
    return file.getvalue()


def detector(seed: int) -> tuple[Detector, np.ndarray]:
    """A detector with its threshold amid the scores of the images, and these scores."""
    network = varied_network(ModelSpec.of("mobilenet_v3_large", SIZE), seed)
    made = Detector(network, Card(model=network.spec, geometry="resize"))
    scores = made.score(np.stack([made.preprocess(picture(n)) for n in range(IMAGES)]))
    return made.with_card(decision=Decision(threshold=float(np.median(scores)))), scores


@pytest.fixture(scope="package")
def made(tmp_path_factory: pytest.TempPathFactory, empty_store: Path) -> Iterator[Made]:
    """The store, in whose folder all tests of the package run; `data.csv` names the images."""
    folder = tmp_path_factory.mktemp("comparison")
    before, here = mlflow.get_tracking_uri(), Path.cwd()
    uri = copy_store(empty_store, folder)
    mlflow.set_tracking_uri(uri)
    patch = pytest.MonkeyPatch()
    patch.setenv("MLFLOW_TRACKING_URI", uri)
    patch.setenv("SYNTHDETECT_CACHE", str(folder / "cache"))
    os.chdir(folder)
    (good, scores), (bad, _) = detector(1), detector(2)
    rows = pd.DataFrame({"path": [f"images/{n} <b>.png" for n in range(IMAGES)]})
    (folder / "images").mkdir()
    for number, path in enumerate(rows["path"]):
        Path(path).write_bytes(picture(number))
    label = np.where(scores >= np.median(scores), "synthetic", "real")
    generator = np.where(label == "real", "", np.resize(["g<script>1", "h"], IMAGES))
    rows.assign(label=label, generator=generator, split="test").to_csv("data.csv", index=False)
    ids = {}
    for name, one in (("bad", bad), ("good", good)):
        with open_run(name, kind="train", tags={}) as run:
            run.log_params({"optim.lr": "0.1" if name == "good" else "0.2", "loss.loss": "bce"})
            for epoch in (1, 2, 3):
                run.log_metrics({"val/auc": 0.5 + epoch / 10, "val/loss": 1 / epoch}, epoch)
            model = log_detector(run, one.with_card(provenance={"run_id": run.id}))
            register(model, "detector")  # the bad one is first, and so the champion
        ids[name] = run.id
        quick = ["--explain", "0", "--spectra", "false"]
        assert main(["evaluate", "--model", run.id, "--data", "data.csv", *quick]) == 0
        ids[f"of_{name}"] = newest("evaluate").info.run_id
    yield Made(**ids)
    os.chdir(here)
    patch.undo()
    mlflow.set_tracking_uri(before)

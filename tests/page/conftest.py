"""Detectors that differ in what there is to see of them, and a server with the page."""

import io
import socket
import threading
import time
from collections.abc import Iterator

import numpy as np
import pandas as pd
import pytest
import uvicorn
from PIL import Image

from synthdetect.detectors.card import Card
from synthdetect.detectors.detector import Detector
from synthdetect.evaluation.decision import Decision
from synthdetect.models.spec import ModelSpec
from synthdetect.page.about import about
from synthdetect.page.routes import add_page
from synthdetect.serving.connections import settings_for
from synthdetect.serving.options import ServeOptions
from synthdetect.serving.server import application
from synthdetect.tracking.recorded import Results
from tests.detectors.helpers import varied_network
from tests.report.conftest import HOSTILE

OPTIONS = ServeOptions(max_mib=1, max_pixels=4_000_000)


def picture(width: int = 80, height: int = 70, kind: str = "PNG", seed: int = 0) -> bytes:
    """The file of an image of noise."""
    rng, file = np.random.default_rng(seed), io.BytesIO()
    Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8)).save(file, kind)
    return file.getvalue()


def made(front_end: str = "npr", views: str = "five", size: int = 64) -> Detector:
    """A detector of a network whose scores of noise differ, with a band of doubt."""
    network = varied_network(ModelSpec.of("mobilenet_v3_large", size, front_end))
    provenance = {"training_generators": [HOSTILE[0], "seen"], "data": "/a/secret/folder"}
    decision = Decision(threshold=0.6, unsure=0.05)
    card = Card(model=network.spec, geometry="center_crop", views=views, decision=decision,
                provenance=provenance)  # fmt: skip
    return Detector(network, card)


def results() -> Results:
    """Results with a generator for each kind of statement, one of them with a hostile name."""
    aucs = {HOSTILE[0]: (0.9, 0.8, 0.95), "unseen": (0.7, 0.6, 0.8), "weak": (0.55, 0.45, 0.65)}
    rows = [("test", name, 20, *bounds) for name, bounds in aucs.items()]
    rows.append(("val", "seen", 20, 0.99, 0.98, 1.0))
    columns = ["split", "generator", "images", "auc", "auc_low", "auc_high"]
    metrics = [("test", "real_accuracy", 0.9, 0.8, 0.97), ("test", "fake_accuracy", 0.6, 0.5, 0.7),
               ("control", "auc_against_real", 0.8, 0.7, 0.9)]  # fmt: skip
    return Results(
        pd.DataFrame(metrics, columns=["split", "metric", "value", "low", "high"]),
        pd.DataFrame(rows, columns=columns),
    )


@pytest.fixture(scope="package")
def detector() -> Detector:
    return made()


@pytest.fixture(scope="module")
def address(detector: Detector) -> Iterator[str]:
    """The address of a server with the page."""
    known = about(f"models:/{HOSTILE[1]}", detector.card, results(), OPTIONS)
    app = application(detector, OPTIONS, extend=lambda app: add_page(app, detector, known, OPTIONS))
    with socket.create_server(("127.0.0.1", 0)) as listening:
        server = uvicorn.Server(settings_for(app, 30))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        while not server.started:
            assert thread.is_alive()
            time.sleep(0.01)
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        server.should_exit = server.force_exit = True
        thread.join()

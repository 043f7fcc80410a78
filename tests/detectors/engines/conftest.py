"""Fixtures: a detector whose scores differ between images, exported once for all tests."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from synthdetect.detectors.card import Card
from synthdetect.detectors.detector import Detector
from synthdetect.detectors.engines.convert import to_graph
from synthdetect.detectors.engines.exported import save_exported
from synthdetect.evaluation.calibration import Calibration
from synthdetect.evaluation.decision import Decision
from synthdetect.models.spec import ModelSpec
from tests.detectors.helpers import varied_network

SIZE = 32


def varied_detector(arch: str, front_end: str = "rgb") -> Detector:
    """An untrained detector whose scores of images of noise differ."""
    network = varied_network(ModelSpec.of(arch, SIZE, front_end))
    card = Card(
        model=network.spec,
        geometry="resize",
        decision=Decision(Calibration(slope=1 / 1.7), threshold=0.4),
        provenance={"run_id": "abc", "weights": "random"},
        weights_sha256="of the tensors",
    )
    return Detector(network, card)


@pytest.fixture(scope="session")
def detector() -> Detector:
    return varied_detector("resnet18")


@pytest.fixture(scope="session")
def squares() -> npt.NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (9, SIZE, SIZE, 3), dtype=np.uint8)


@pytest.fixture(scope="session")
def graph(detector: Detector) -> bytes:
    """The bytes of an ONNX file of the detector's network, without a card."""
    return bytes(to_graph(detector).SerializeToString())


@pytest.fixture(scope="session")
def exported(detector: Detector, graph: bytes, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """File of the detector exported to ONNX Runtime."""
    import onnx

    path = tmp_path_factory.mktemp("exported") / "detector.onnx"
    card = replace(detector.card, engine="onnxruntime")
    save_exported(path, onnx.ModelProto.FromString(graph), card)
    return path

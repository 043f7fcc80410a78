"""Fixtures: a detector whose scores differ between images, exported once for all tests."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import nn

from synthdetect.detectors.card import Card
from synthdetect.detectors.detector import Detector
from synthdetect.detectors.engines.convert import to_graph
from synthdetect.detectors.engines.exported import save_exported
from synthdetect.evaluation.calibration import Calibration
from synthdetect.models.networks import build

SIZE = 32


def varied_detector(arch: str) -> Detector:
    """An untrained detector whose scores of images of noise differ."""
    torch.manual_seed(0)
    network = build(arch, SIZE)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0
    nn.init.normal_(network.head.weight, std=0.05)  # some architectures initialise it to zero
    with torch.no_grad():  # the scores differ with the batch normalisation statistics of noise
        network.train()
        network(torch.randint(0, 256, (16, 3, SIZE, SIZE), dtype=torch.uint8))
    card = Card(
        arch=arch,
        image_size=SIZE,
        geometry="resize",
        calibration=Calibration(slope=1 / 1.7),
        threshold=0.4,
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
    return to_graph(detector).SerializeToString()


@pytest.fixture(scope="session")
def exported(detector: Detector, graph: bytes, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """File of the detector exported to ONNX Runtime."""
    import onnx

    path = tmp_path_factory.mktemp("exported") / "detector.onnx"
    card = replace(detector.card, engine="onnxruntime")
    save_exported(path, onnx.ModelProto.FromString(graph), card)
    return path

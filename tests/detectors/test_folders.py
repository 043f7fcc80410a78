"""Folders in the form of the Hub: what is written is read, and nothing else is."""

import json
from pathlib import Path

import numpy as np
import pytest

from synthdetect.detectors.card import Card
from synthdetect.detectors.detector import Detector
from synthdetect.detectors.folders import CARD, CONFIG, WEIGHTS, load_folder, save_folder
from synthdetect.evaluation.decision import Decision
from synthdetect.models.spec import ModelSpec
from synthdetect.system.errors import UserError
from synthdetect.tracking.detectors import find_detector
from tests.detectors.helpers import varied_network


@pytest.fixture(scope="module")
def detector() -> Detector:
    network = varied_network(ModelSpec.of("resnet18", 32))
    return Detector(
        network, Card(model=network.spec, geometry="resize", decision=Decision(threshold=0.3))
    )


@pytest.fixture
def folder(detector: Detector, tmp_path: Path) -> Path:
    save_folder(tmp_path / "hub", detector)
    return tmp_path / "hub"


def test_a_folder_is_read_as_it_was_written(folder: Path, detector: Detector) -> None:
    squares = np.random.default_rng(0).integers(0, 256, (4, 32, 32, 3), dtype=np.uint8)
    found = find_detector((str(folder),))
    np.testing.assert_array_equal(found.detector.score(squares), detector.score(squares))
    assert (found.name, found.model_id) == (str(folder), None)
    assert found.detector.card.decision.threshold == 0.3
    assert sorted(file.name for file in folder.iterdir()) == [CARD, CONFIG, WEIGHTS]
    config = json.loads((folder / CONFIG).read_text())
    assert config["id2label"] == {"0": "real", "1": "synthetic"}
    save_folder(folder, detector)  # over itself


def test_a_card_beside_the_weights_that_says_something_else_is_refused(folder: Path) -> None:
    card = json.loads((folder / CARD).read_text())
    card["decision"]["threshold"] = 0.9
    (folder / CARD).write_text(json.dumps(card))
    with pytest.raises(UserError, match="has another decision"):
        load_folder(folder)
    for text in ("[1]", "{", "x" * 2**21):
        (folder / CARD).write_text(text)
        with pytest.raises(UserError, match="cannot be read"):
            load_folder(folder)
    (folder / CARD).unlink()
    assert load_folder(folder).card.decision.threshold == 0.3


def test_a_folder_of_something_else_is_neither_read_nor_overwritten(
    tmp_path: Path, detector: Detector
) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(UserError, match="it has no model"):
        load_folder(tmp_path)
    with pytest.raises(UserError, match="no model of synthdetect"):
        save_folder(tmp_path, detector)
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="no model of synthdetect"):
        save_folder(tmp_path / "file", detector)

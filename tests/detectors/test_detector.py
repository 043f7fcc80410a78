"""A detector's file: it gives the same scores back, and anything that is not one is refused."""

import dataclasses
import io
import json
import math
import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from synthdetect.detectors.card import Card
from synthdetect.detectors.detector import Detector
from synthdetect.evaluation.calibration import Calibration
from synthdetect.images.geometry import Preprocess
from synthdetect.models.networks import build
from synthdetect.system.errors import UserError

CARD = Card(
    arch="mobilenet_v3_large",
    image_size=32,
    geometry="resize",
    calibration=Calibration(slope=1 / 1.7),
    threshold=0.4,
    provenance={"run_id": "abc", "training_generators": ["glide", "sd14"], "finetune": 0.2},
)


@pytest.fixture(scope="module")
def detector() -> Detector:
    torch.manual_seed(0)
    network = build(CARD.model)
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = 1.0
    with torch.no_grad():  # with the batch's statistics the scores of its images differ
        network.train()
        network(torch.randint(0, 256, (16, 3, 32, 32), dtype=torch.uint8))
    return Detector(network, CARD)


@pytest.fixture(scope="module")
def saved(detector: Detector, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("detector") / "detector.safetensors"
    detector.save(path)
    return path


@pytest.fixture(scope="module")
def squares() -> npt.NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (5, 32, 32, 3), dtype=np.uint8)


def rewritten(saved: Path, target: Path, header: dict[str, Any], **changed: torch.Tensor) -> Path:
    """The saved detector with fields of its card, and tensors, replaced."""
    with safe_open(saved, framework="pt") as file:
        card = json.loads(file.metadata()["card"])
    save_file(load_file(saved) | changed, target, {"card": json.dumps(card | header)})
    return target


def refusal(path: Path) -> str:
    with pytest.raises(UserError) as caught:
        Detector.load(path)
    assert str(path) in str(caught.value)
    return str(caught.value)


# --- scores


def test_scores_are_the_sigmoid_of_the_logits_over_the_temperature(
    detector: Detector, squares: npt.NDArray[np.uint8]
) -> None:
    images = torch.from_numpy(squares).permute(0, 3, 1, 2)
    with torch.no_grad():
        logits = detector.network(images).tolist()
    assert max(logits) - min(logits) > 0.01
    expected = [1 / (1 + math.exp(-logit / 1.7)) for logit in logits]
    assert detector.score(squares).dtype == np.float64
    assert detector.score(squares) == pytest.approx(expected, rel=1e-9)


def test_calibrated_logits_are_divided_by_the_temperature(detector: Detector) -> None:
    assert detector.calibrated([3.4, -1.7, 0]).tolist() == [2.0, -1.0, 0.0]


def test_an_images_score_does_not_depend_on_its_batch(
    detector: Detector, squares: npt.NDArray[np.uint8]
) -> None:
    alone = [detector.score(squares[i : i + 1])[0] for i in range(len(squares))]
    assert detector.score(squares) == pytest.approx(alone, abs=1e-5)
    assert not detector.network.training


def test_files_are_preprocessed_as_the_card_says(detector: Detector) -> None:
    image = Image.effect_noise((50, 40), 60).convert("RGB")
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    expected = np.asarray(image.resize((32, 32), Image.Resampling.BILINEAR))
    assert (detector.preprocess(buffer.getvalue()) == expected).all()


# --- the file


def test_a_detector_read_back_scores_exactly_the_same(
    detector: Detector, saved: Path, squares: npt.NDArray[np.uint8]
) -> None:
    loaded = Detector.load(saved)
    assert loaded.score(squares).tolist() == detector.score(squares).tolist()
    for name, value in detector.network.state_dict().items():
        assert torch.equal(loaded.network.state_dict()[name], value)


def test_the_card_read_back_is_the_card_that_was_written(
    detector: Detector, tmp_path: Path
) -> None:
    written = detector.save(tmp_path / "folder" / "detector.safetensors")
    assert Detector.load(tmp_path / "folder" / "detector.safetensors").card == written
    assert os.listdir(tmp_path / "folder") == ["detector.safetensors"]


def test_the_card_says_what_it_was_given_and_the_weights_hash(detector: Detector) -> None:
    assert detector.card == CARD
    assert (CARD.classes, CARD.format, CARD.weights_sha256) == (("real", "synthetic"), 2, "")


def test_equal_weights_have_equal_hashes_and_others_do_not(
    detector: Detector, saved: Path, tmp_path: Path
) -> None:
    first = detector.save(tmp_path / "a.safetensors")
    again = Detector.load(saved).save(tmp_path / "b.safetensors")
    assert len(first.weights_sha256) == 64
    assert again.weights_sha256 == first.weights_sha256
    torch.manual_seed(1)
    other = Detector(build(CARD.model), CARD).save(tmp_path / "c.safetensors")
    assert other.weights_sha256 != first.weights_sha256


# --- what is refused


def test_changed_weights_are_refused(saved: Path, tmp_path: Path) -> None:
    bias = load_file(saved)["backbone.classifier.3.bias"]
    path = rewritten(
        saved, tmp_path / "changed.safetensors", {}, **{"backbone.classifier.3.bias": bias + 1e-3}
    )
    assert "weights are not those" in refusal(path)


def test_a_single_flipped_byte_is_refused(saved: Path, tmp_path: Path) -> None:
    content = bytearray(saved.read_bytes())
    content[-1000] ^= 1
    path = tmp_path / "flipped.safetensors"
    path.write_bytes(content)
    assert "weights are not those" in refusal(path)


@pytest.mark.parametrize("kept", [0, 7, 1000, -1])
def test_a_truncated_file_is_refused(saved: Path, tmp_path: Path, kept: int) -> None:
    path = tmp_path / "cut.safetensors"
    path.write_bytes(saved.read_bytes()[:kept])
    assert "damaged" in refusal(path)


class Bomb:
    """Makes a file when it is unpickled."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> Any:
        return (open, (str(self.trace), "w"))


def test_a_pickle_is_refused_and_not_executed(tmp_path: Path) -> None:
    path, trace = tmp_path / "pickle.safetensors", tmp_path / "executed"
    path.write_bytes(pickle.dumps(Bomb(trace)))
    refusal(path)
    torch.save({"weight": Bomb(trace)}, path)
    refusal(path)
    assert not trace.exists()


def test_a_missing_file_and_a_folder_are_refused(tmp_path: Path) -> None:
    refusal(tmp_path / "absent.safetensors")
    refusal(tmp_path)


def test_weights_without_a_card_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "plain.safetensors"
    save_file({"weight": torch.zeros(2)}, path)
    assert "no detector" in refusal(path)


@pytest.mark.parametrize("text", ["not json", "[1, 2]", "null", '"card"'])
def test_a_card_that_is_no_card_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "odd.safetensors"
    save_file({"weight": torch.zeros(2)}, path, {"card": text})
    refusal(path)


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ({"format": 1}, "card format 1; this version reads 2"),
        ({"format": None}, "card format None"),
        ({"arch": "vgg16"}, "vgg16"),
        ({"geometry": "stretch"}, "stretch"),
        ({"arch": "resnet18"}, "resnet18"),
        ({"mood": "good"}, "mood"),
        ({"calibration": {"slope": 1}}, "knots"),
        ({"calibration": "temperature"}, "its card does not fit"),
        ({"weights_sha256": "0" * 64}, "weights are not those"),
        ({"equalise_quality": -1}, "no JPEG quality to equalise at: -1"),
        ({"equalise_quality": "high"}, "no JPEG quality to equalise at: 'high'"),
    ],
)
def test_a_card_that_does_not_fit_is_refused(
    saved: Path, tmp_path: Path, header: dict[str, Any], message: str
) -> None:
    assert message in refusal(rewritten(saved, tmp_path / "other.safetensors", header))


@pytest.mark.parametrize(
    "header", [{"mean": [0.5, 0.5, 0.5]}, {"std": [1, 1, 1]}, {"classes": ["synthetic", "real"]}]
)
def test_a_card_for_other_normalisation_or_classes_is_refused(
    saved: Path, tmp_path: Path, header: dict[str, Any]
) -> None:
    """The network normalises by constants, so a card that says otherwise cannot be honoured."""
    refusal(rewritten(saved, tmp_path / "other.safetensors", header))


def test_the_card_cannot_be_changed() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        CARD.threshold = 0.5  # type: ignore[misc]


def test_equalising_travels_with_the_card(detector: Detector, tmp_path: Path) -> None:
    path = tmp_path / "detector.safetensors"
    Detector(detector.network, dataclasses.replace(CARD, equalise_quality=70)).save(path)
    loaded = Detector.load(path)
    assert loaded.card.equalise_quality == 70
    assert loaded.preprocess == Preprocess(32, "resize", 70)


def test_a_card_from_before_equalising_loads_without_it(saved: Path, tmp_path: Path) -> None:
    with safe_open(saved, framework="pt") as file:
        header = json.loads(file.metadata()["card"])
    del header["equalise_quality"]
    old = tmp_path / "old.safetensors"
    save_file(load_file(saved), old, metadata={"card": json.dumps(header)})
    assert Detector.load(old).preprocess == Preprocess(32, "resize")

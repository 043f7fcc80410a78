"""Tests of a detector's file: the same scores when read back, and what is refused."""

import dataclasses
import io
import json
import math
import os
import pickle
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from scipy.special import logit

from synthdetect.detectors.card import Card
from synthdetect.detectors.detector import Detector
from synthdetect.evaluation.calibration import Calibration
from synthdetect.evaluation.decision import Decision
from synthdetect.images.geometry import Preprocess
from synthdetect.models.networks import build
from synthdetect.models.spec import ModelSpec
from synthdetect.system.errors import UserError
from tests.detectors.helpers import card_of, in_format_2, varied_network, with_card

CARD = Card(
    model=ModelSpec.of("mobilenet_v3_large", 32),
    geometry="resize",
    decision=Decision(Calibration(slope=1 / 1.7), threshold=0.4, unsure=0.05),
    provenance={"run_id": "abc", "training_generators": ["glide", "sd14"], "finetune": 0.2},
)


@pytest.fixture(scope="module")
def detector() -> Detector:
    return Detector(varied_network(CARD.model), CARD)


@pytest.fixture(scope="module")
def saved(detector: Detector, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("detector") / "detector.safetensors"
    detector.save(path)
    return path


@pytest.fixture(scope="module")
def squares() -> npt.NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (5, 32, 32, 3), dtype=np.uint8)


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


def test_the_score_is_the_mean_over_the_views_of_the_card(
    detector: Detector, squares: npt.NDArray[np.uint8]
) -> None:
    flipped = detector.with_card(views="flip")
    both = [logit(detector.score(s)) for s in (squares, squares[:, :, ::-1].copy())]
    assert np.abs(both[0] - both[1]).max() > 1e-3  # the mirror image makes a difference
    assert logit(flipped.score(squares)) == pytest.approx(np.mean(both, axis=0), abs=1e-5)


def test_an_image_as_pillow_makes_it_causes_no_warning(
    detector: Detector, squares: npt.NDArray[np.uint8]
) -> None:
    fixed = squares.copy()
    fixed.setflags(write=False)
    torch.set_warn_always(True)  # else once in a process
    try:
        with warnings.catch_warnings(action="error"):
            scores = detector.score(fixed)
    finally:
        torch.set_warn_always(False)
    assert scores.tolist() == detector.score(squares).tolist()


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
    assert (CARD.classes, CARD.format, CARD.weights_sha256) == (("real", "synthetic"), 3, "")
    assert (CARD.views, CARD.decision.prior) == ("single", None)


def test_a_card_from_before_views_and_priors_is_of_single_images_and_an_unknown_prior(
    detector: Detector, saved: Path, tmp_path: Path
) -> None:
    header = card_of(saved)
    del header["views"], header["decision"]["prior"]
    old = tmp_path / "old.safetensors"
    save_file(load_file(saved), old, {"card": json.dumps(header)})
    assert Detector.load(old).card == Detector.load(saved).card
    views = with_card(saved, tmp_path / "new.safetensors", {"views": "flip", "decision.prior": 0.2})
    card = Detector.load(views).card
    assert (card.views, card.decision.prior) == ("flip", 0.2)


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
    path = with_card(
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
    assert "not a detector" in refusal(path)


@pytest.mark.parametrize("text", ["not json", "[1, 2]", "null", '"card"'])
def test_a_card_that_is_no_card_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "odd.safetensors"
    save_file({"weight": torch.zeros(2)}, path, {"card": text})
    refusal(path)


UNKNOWN = {"temperature": 1.0, "threshold": 0.5}


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ({"format": 1}, "card format 1; this version reads 3 and 2"),
        ({"format": None}, "card format None"),
        ({"model.arch": "vgg16"}, "model.arch is 'vgg16'"),
        ({"model.front_end": "hsv"}, "model.front_end is 'hsv'"),
        ({"model.generators": ["a", "b"]}, "attribution is None for 2 generators"),
        ({"model.generators": ["a", "a"]}, "model.generators is"),
        (
            {"model.generators": ["a", "b"], "model.probe": "linear", "attribution": UNKNOWN},
            "a probe, linear, attributes no images",
        ),
        ({"attribution": {"temperature": 0, "threshold": 0.5}}, "attribution is"),
        ({"geometry": "stretch"}, "geometry is 'stretch'"),
        ({"model.arch": "resnet18"}, "resnet18"),
        ({"mood": "good"}, "mood"),
        ({"model.mood": "good"}, "mood"),
        ({"decision.mood": "good"}, "mood"),
        ({"decision.calibration": {"slope": 1}}, "knots"),
        ({"decision.calibration": "temperature"}, "its card does not fit"),
        ({"weights_sha256": "0" * 64}, "weights are not those"),
        ({"equalise_quality": -1}, "equalise_quality is -1"),
        ({"equalise_quality": "high"}, "equalise_quality is 'high'"),
        ({"model.mean": [0.5, 0.5]}, "model.mean is (0.5, 0.5)"),
        ({"model.mean": [0.5, 0.5, 1.5]}, "model.mean is (0.5, 0.5, 1.5)"),
        ({"model.std": [1, 1, 0]}, "model.std is (1, 1, 0)"),
        ({"classes": ["synthetic", "real"]}, "classes is ('synthetic', 'real')"),
    ],
)
def test_a_card_that_does_not_fit_is_refused(
    saved: Path, tmp_path: Path, header: dict[str, Any], message: str
) -> None:
    assert message in refusal(with_card(saved, tmp_path / "other.safetensors", header))


def test_the_normalisation_is_that_of_the_card(
    detector: Detector, saved: Path, tmp_path: Path, squares: npt.NDArray[np.uint8]
) -> None:
    """Images whose colours are moved as the mean is moved have the same scores."""
    other = {"model.mean": [0.0, 0.0, 0.0], "model.std": [0.5, 0.5, 0.5]}
    loaded = Detector.load(with_card(saved, tmp_path / "other.safetensors", other))
    assert loaded.card.model.std == (0.5, 0.5, 0.5)
    pixels = torch.from_numpy(squares).permute(0, 3, 1, 2).float()
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (CARD.model.mean, CARD.model.std))
    moved = (pixels / 255 - mean) / std * 0.5 * 255
    with torch.no_grad():
        torch.testing.assert_close(
            loaded.network(moved), detector.network(pixels), atol=1e-3, rtol=1e-4
        )


def test_the_card_cannot_be_changed() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        CARD.geometry = "crop"  # type: ignore[misc]


def test_equalising_travels_with_the_card(detector: Detector, tmp_path: Path) -> None:
    path = tmp_path / "detector.safetensors"
    Detector(detector.network, dataclasses.replace(CARD, equalise_quality=70)).save(path)
    loaded = Detector.load(path)
    assert loaded.card.equalise_quality == 70
    assert loaded.preprocess == Preprocess(32, "resize", 70)


def test_a_card_from_before_equalising_loads_without_it(saved: Path, tmp_path: Path) -> None:
    header = card_of(saved)
    del header["equalise_quality"]
    old = tmp_path / "old.safetensors"
    save_file(load_file(saved), old, metadata={"card": json.dumps(header)})
    assert Detector.load(old).preprocess == Preprocess(32, "resize")


# --- cards of format 2


def with_old_card(saved: Path, target: Path, **changes: Any) -> Path:
    """Write the detector's file with a card of format 2; a value of None removes the field."""
    header = in_format_2(card_of(saved)) | changes
    kept = {name: value for name, value in header.items() if value is not None}
    save_file(load_file(saved), target, {"card": json.dumps(kept)})
    return target


def test_a_card_of_format_2_is_the_same_detector(
    saved: Path, tmp_path: Path, squares: npt.NDArray[np.uint8]
) -> None:
    loaded = Detector.load(with_old_card(saved, tmp_path / "old.safetensors"))
    wanted = Detector.load(saved)
    assert loaded.card == wanted.card
    assert loaded.card.model.front_end == "rgb"
    assert loaded.score(squares).tolist() == wanted.score(squares).tolist()


def test_a_detector_of_format_2_is_saved_in_format_3(saved: Path, tmp_path: Path) -> None:
    old = with_old_card(saved, tmp_path / "old.safetensors")
    Detector.load(old).save(tmp_path / "new.safetensors")
    assert card_of(tmp_path / "new.safetensors") == card_of(saved)


def test_the_knots_of_a_card_of_format_2_are_kept(saved: Path, tmp_path: Path) -> None:
    calibration = {"slope": 1.0, "offset": 0.0, "knots": [[-1.0, -2.0], [1.0, 3.0]]}
    path = with_old_card(saved, tmp_path / "old.safetensors", calibration=calibration)
    assert Detector.load(path).calibrated([-9, 0, 9]).tolist() == [-2.0, 0.5, 3.0]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"threshold": None}, "threshold"),
        ({"calibration": None}, "calibration"),
        ({"std": None}, "std"),
        ({"threshold": 1.5}, "decision.threshold is 1.5"),
        ({"arch": "vgg16"}, "model.arch is 'vgg16'"),
        ({"front_end": "npr"}, "front_end"),
    ],
)
def test_a_card_of_format_2_that_does_not_fit_is_refused(
    saved: Path, tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    assert message in refusal(with_old_card(saved, tmp_path / "old.safetensors", **changes))

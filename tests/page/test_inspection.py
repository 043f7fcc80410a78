"""Tests of what is shown of one image, against the detector's own answers."""

import base64
import io
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.special import expit, logit
from torch import Tensor, nn

from synthdetect.detectors.detector import Detector
from synthdetect.images.reading import BadImage
from synthdetect.page.inspection import inspect_image
from tests.page.conftest import made, picture

MOST = 10**6


def pixels(png: str) -> np.ndarray[Any, Any]:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(png))))


def of_file(detector: Detector, content: bytes) -> float:
    return float(detector.score(detector.preprocess(content)[None])[0])


def test_the_answer_is_that_of_the_detector(detector: Detector) -> None:
    content = picture()
    found = inspect_image(detector, content, max_pixels=MOST)
    assert found.probability == of_file(detector, content)
    assert found.label == detector.card.decision.answer(found.probability).words.item()


def test_the_map_differs_from_the_square_beside_it(detector: Detector) -> None:
    content = picture()
    seen, explained = inspect_image(detector, content, max_pixels=MOST).evidence
    np.testing.assert_array_equal(pixels(seen.png), detector.preprocess(content))
    assert pixels(explained.png).shape == (64, 64, 3)
    assert (pixels(explained.png) != pixels(seen.png)).mean() > 0.5
    word = "synthetic" if of_file(detector, content) >= 0.6 else "real"
    assert f"“{word}”" in explained.caption


def test_the_views_are_those_that_the_score_is_averaged_over(detector: Detector) -> None:
    content = picture()
    found = inspect_image(detector, content, max_pixels=MOST)
    assert len(found.views) == 5
    mean = expit(np.mean([logit(view.probability) for view in found.views]))
    assert found.probability == pytest.approx(mean, abs=1e-5)
    square = detector.preprocess(content)
    np.testing.assert_array_equal(pixels(found.views[3].picture.png), square[32:, 32:])
    assert inspect_image(made(views="single"), content, max_pixels=MOST).views == []


def test_changed_versions_are_scored_as_files_of_them_would_be(detector: Detector) -> None:
    content = picture(90, 91)
    unchanged, *changed = inspect_image(detector, content, max_pixels=MOST).rescored
    assert unchanged.probability == of_file(detector, content)
    image = Image.open(io.BytesIO(content))
    for row in changed[:-1]:
        file = io.BytesIO()
        image.save(file, "JPEG", quality=int(row.change.rpartition(" ")[2]))
        assert row.probability == pytest.approx(of_file(detector, file.getvalue()), abs=1e-6)
    assert [row.change for row in changed] == [
        "JPEG, quality 90", "JPEG, quality 75", "JPEG, quality 50", "JPEG, quality 30",
        "half size, 45 x 46 pixels",
    ]  # fmt: skip
    assert len({row.probability for row in changed}) == len(changed)


@pytest.mark.parametrize(
    ("front_end", "pictures", "side"),
    [("rgb", 0, 0), ("npr", 1, 64), ("rgb+npr", 1, 64), ("highpass", 3, 64), ("wavelet", 3, 64),
     ("dct", 1, 16), ("fft", 1, 64)],
)  # fmt: skip
def test_the_residual_is_what_the_front_end_made(front_end: str, pictures: int, side: int) -> None:
    size = 256 if front_end == "dct" else 64
    detector = made(front_end, "single", size)
    found = inspect_image(detector, picture(300, 300), max_pixels=MOST).residuals
    assert len(found) == pictures
    for residual in found:
        assert residual.caption.startswith(front_end)
        assert pixels(residual.png).shape == ((64, 64, 3) if size == 256 else (side, side, 3))
        assert pixels(residual.png).std() > 10


def test_the_filters_of_a_front_end_are_kept_apart() -> None:
    """The colours of a grey image are equal in each residual, and so stay grey."""
    file = io.BytesIO()
    grey = np.random.default_rng(0).integers(0, 256, (64, 64), dtype=np.uint8)
    Image.fromarray(grey).save(file, "PNG")
    found = inspect_image(made("highpass", "single"), file.getvalue(), max_pixels=MOST).residuals
    shown = [pixels(residual.png) for residual in found]
    assert all((one[..., :1] == one).all() for one in shown)
    assert (shown[0] != shown[1]).any()


def test_a_network_without_visible_layers_has_no_map(detector: Detector) -> None:
    class Opaque(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            return images.float().mean((1, 2, 3))

    found = inspect_image(Detector(Opaque(), detector.card), picture(), max_pixels=MOST)
    assert len(found.evidence) == 1
    assert "exported" in found.without_map


def test_what_the_file_says_is_shown_without_invisible_characters(detector: Detector) -> None:
    from PIL.PngImagePlugin import PngInfo

    text, file = PngInfo(), io.BytesIO()
    text.add_text("parameters", "a \u202ecat\nSteps: 20, Sampler: Euler, CFG scale: 7", zip=False)
    Image.new("RGB", (70, 70)).save(file, "PNG", pnginfo=text)
    facts = inspect_image(detector, file.getvalue(), max_pixels=MOST).traces
    said = {fact.name: fact.value for fact in facts}
    assert "Stable Diffusion" in said["metadata"]
    assert said["prompt"].startswith("a \\u202ecat Steps: 20")
    assert said["format"] == f"PNG, 70 x 70 pixels, {len(file.getvalue()):,} bytes"
    jpeg = inspect_image(detector, picture(kind="JPEG"), max_pixels=MOST).traces
    assert any(fact.value.startswith("about 75") for fact in jpeg)


def test_an_image_that_is_too_large_is_not_decoded(detector: Detector) -> None:
    with pytest.raises(BadImage, match="80x70 pixels are more than the limit of 5,599"):
        inspect_image(detector, picture(), max_pixels=80 * 70 - 1)


def test_the_network_is_left_as_it_was(detector: Detector) -> None:
    before = [tensor.clone() for tensor in detector.network.state_dict().values()]
    inspect_image(detector, picture(), max_pixels=MOST)
    after = detector.network.state_dict().values()
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))
    assert not any(module._forward_hooks for module in detector.network.modules())

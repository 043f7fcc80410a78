"""What there is to see of one image: the verdict's evidence, its stability, and the file's traces.

All of it is computed with the detector's own preprocessing, views and decision.
"""

import base64
import hashlib
import io
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from pydantic.dataclasses import dataclass
from scipy.special import expit

from synthdetect.detectors.detector import Detector
from synthdetect.explanation.figures import overlay
from synthdetect.explanation.gradcam import grad_cam
from synthdetect.images.options import GEOMETRIES, VIEWS
from synthdetect.images.perturbations import PerturbationLevel, perturb
from synthdetect.images.provenance import provenance
from synthdetect.images.reading import describe_image, open_image, read_image
from synthdetect.models.front_ends import FrontEnd
from synthdetect.models.networks import Network
from synthdetect.models.spec import FRONT_ENDS, architecture
from synthdetect.page import DESCRIBED
from synthdetect.system.visible import visible

_QUALITIES = (90, 75, 50, 30)
_CUT_OFF = 99.5  # percentile of the absolute values that is shown at full strength


@dataclass(frozen=True, config=DESCRIBED)
class Picture:
    """A picture to show."""

    caption: str
    """What it shows."""
    png: str
    """Content of the PNG file as base64 text."""


@dataclass(frozen=True, config=DESCRIBED)
class ViewScore:
    """A view of the image, and the detector's score of it alone."""

    picture: Picture
    """The view."""
    probability: float
    """Calibrated probability of synthetic by this view, 0 to 1."""


@dataclass(frozen=True, config=DESCRIBED)
class Rescored:
    """The answer to a changed version of the image."""

    change: str
    """What was changed."""
    probability: float
    """Calibrated probability of synthetic, 0 to 1."""
    label: str
    """real, synthetic or unsure."""


@dataclass(frozen=True, config=DESCRIBED)
class Trace:
    """Something that the file says of itself, without its pixels."""

    name: str
    """What it is about."""
    value: str
    """What it says; untrusted, without invisible characters."""


@dataclass(frozen=True, config=DESCRIBED)
class Inspection:
    """Everything that the page shows of one image."""

    probability: float
    """Calibrated probability of synthetic, 0 to 1."""
    label: str
    """real, synthetic or unsure."""
    evidence: Sequence[Picture]
    """What the network saw, and beside it the Grad-CAM map if the layers can be seen."""
    without_map: str
    """Why there is no map; empty if there is one."""
    views: Sequence[ViewScore]
    """The views that the score is averaged over; none if there is only the square."""
    residuals: Sequence[Picture]
    """What the front-end made of the square; none if that is the image itself."""
    rescored: Sequence[Rescored]
    """The answers to changed versions, first the unchanged one."""
    traces: Sequence[Trace]
    """Encoding and metadata of the file. Anyone can write, change or remove metadata, so they are
    never mixed into the score."""


def inspect_image(detector: Detector, content: bytes, *, max_pixels: int) -> Inspection:
    """Inspect one image.

    Grad-CAM hooks into the network, so no other thread may use the detector meanwhile.

    Args:
        detector: The detector.
        content: Content of the image's file.
        max_pixels: Most pixels of the image; a larger one is not decoded.

    Raises:
        BadImage: If the image cannot be read, or is larger.
    """
    open_image(content, max_pixels=max_pixels)
    image = read_image(content)
    square = np.array(detector.preprocess.square(image))  # torch wants one that it could write to
    rescored = _rescore(detector, image, square, hashlib.sha256(content).hexdigest())
    evidence = [Picture(_seen_as(detector), _png(square))]
    label = int(detector.card.decision.answer(rescored[0].probability).label)
    without_map = _why_no_map(detector)
    if not without_map:
        evidence.append(_map(detector, square, label))
    return Inspection(
        probability=rescored[0].probability,
        label=rescored[0].label,
        evidence=evidence,
        without_map=without_map,
        views=_views(detector, square),
        residuals=_residuals(detector, square),
        rescored=rescored,
        traces=_traces(content),
    )


def _rescore(
    detector: Detector, image: Image.Image, square: npt.NDArray[np.uint8], sha256: str
) -> list[Rescored]:
    squares = {"unchanged": square}
    for quality in _QUALITIES:
        changed = perturb(image, PerturbationLevel("jpeg", quality), sha256, seed=0)
        squares[f"JPEG, quality {quality}"] = detector.preprocess.square(changed)
    half = tuple(max(1, round(side / 2)) for side in image.size)
    smaller = image.resize((half[0], half[1]), Image.Resampling.BICUBIC)
    squares[f"half size, {half[0]} x {half[1]} pixels"] = detector.preprocess.square(smaller)
    # One by one, as /invocations scores a single image: a batch of another size rounds otherwise.
    probabilities = np.concatenate([detector.score(one[None]) for one in squares.values()])
    words = detector.card.decision.answer(probabilities).words
    return [
        Rescored(change, float(probability), str(word))
        for change, probability, word in zip(squares, probabilities, words, strict=True)
    ]


def _seen_as(detector: Detector) -> str:
    card = detector.card
    size, how = card.model.image_size, GEOMETRIES[card.geometry].help.rstrip(".")
    encoded = ""
    if card.equalise_quality:
        encoded = f", after shrinking and JPEG encoding at quality {card.equalise_quality}"
    return f"What the network saw: {size} x {size} pixels. {how}{encoded}."


def _why_no_map(detector: Detector) -> str:
    if not isinstance(detector.network, Network):
        return "The layers of an exported detector cannot be seen, so there is no map."
    arch = detector.card.model.arch
    if not architecture(arch).cam:
        return f"No layer of {arch} is known that Grad-CAM can explain."
    return ""


def _map(detector: Detector, square: npt.NDArray[np.uint8], label: int) -> Picture:
    assert isinstance(detector.network, Network)
    card = detector.card
    strength = grad_cam(
        detector.network, card.model.arch, square[None], toward=label, views=card.views
    )[0]
    answer = card.classes[label]
    caption = f"Where the evidence for “{answer}” lies (Grad-CAM; bright: strongest)"
    if not strength.any():
        caption = f"Grad-CAM finds evidence for “{answer}” at no place"
    return Picture(caption, _png(overlay(square, strength)))


def _views(detector: Detector, square: npt.NDArray[np.uint8]) -> list[ViewScore]:
    name = detector.card.views
    with torch.inference_mode():
        parts = [view.images for view in VIEWS[name].load()(_batch(square))]
        if len(parts) == 1:
            return []
        logits = torch.cat([detector.network(part) for part in parts]).double().numpy()
    probabilities = expit(detector.calibrated(logits))
    return [
        ViewScore(
            Picture(f"View {number} of {len(parts)} ({name})", _png(_pixels(part[0]))), float(p)
        )
        for number, (part, p) in enumerate(zip(parts, probabilities, strict=True), 1)
    ]


def _residuals(detector: Detector, square: npt.NDArray[np.uint8]) -> list[Picture]:
    """Return what the front-end sees, with the mean grey and the strongest values at full range."""
    spec = detector.card.model
    entry = FRONT_ENDS[spec.front_end]
    front_end: FrontEnd = entry.load()(spec)  # it has no weights
    with torch.inference_mode():
        pictures = front_end.pictures(front_end(_batch(square)))[0].numpy()
    found = []
    for number, picture in enumerate(pictures, 1):
        values = picture - picture.mean()
        strongest = float(np.percentile(np.abs(values), _CUT_OFF)) or 1.0
        grey = np.rint(127.5 + 127.5 * np.clip(values / strongest, -1, 1)).astype(np.uint8)
        of = f", {number} of {len(pictures)}" if len(pictures) > 1 else ""
        caption = f"{spec.front_end}{of}: {entry.help} Contrast is stretched."
        found.append(Picture(caption, _png(grey.transpose(1, 2, 0))))
    return found


def _traces(content: bytes) -> list[Trace]:
    known, origin = describe_image(content), provenance(content)
    size = f"{known['width']} x {known['height']} pixels, {len(content):,} bytes"
    found = [("format", f"{known['format']}, {size}")]
    if known["jpeg_quality"]:
        found.append(("JPEG quality", f"about {known['jpeg_quality']}, by its quantisation table"))
    found += [("metadata", words) for words in origin.words or ("they do not name an origin",)]
    found += [("prompt", origin.prompt), ("unreadable metadata", origin.problem)]
    return [Trace(name, visible(value)) for name, value in found if value]


def _batch(square: npt.NDArray[np.uint8]) -> torch.Tensor:
    return torch.from_numpy(square).permute(2, 0, 1)[None]


def _pixels(image: torch.Tensor) -> npt.NDArray[np.uint8]:
    found: npt.NDArray[np.uint8] = image.permute(1, 2, 0).numpy()
    return found


def _png(pixels: npt.NDArray[np.uint8]) -> str:
    file = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(file, "PNG", compress_level=3)
    return base64.b64encode(file.getvalue()).decode()

"""A trained detector: weights, and a card that says how to use them, in one safetensors file."""

import json
import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from textwrap import shorten
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from scipy.special import expit
from torch import nn

from synthdetect import __version__
from synthdetect.datasets.labels import CLASSES
from synthdetect.evaluation.calibration import UNCALIBRATED, Calibration
from synthdetect.images.geometry import GEOMETRIES, Preprocess
from synthdetect.models.architectures import ARCHITECTURES
from synthdetect.models.networks import IMAGENET_MEAN, IMAGENET_STD, build
from synthdetect.models.tensors import digest_of, tensors_of
from synthdetect.system.errors import UserError
from synthdetect.system.files import replace_atomically

FORMAT = 2
"""Raised when the meaning of a card changes."""

TORCH = "torch"
"""The engine of a detector that was not exported."""


@dataclass(frozen=True)
class Card:
    """What one must know to use the weights, and where they come from.

    Attributes:
        arch: a name of `ARCHITECTURES`.
        image_size: side of the square the network sees, in pixels.
        geometry: how an image becomes that square; a name of `GEOMETRIES`.
        calibration: from the network's logits to those of the probabilities; from validation.
        threshold: the probability from which on an image is called synthetic; from validation.
        unsure: the answer is "unsure" where the probability is nearer to the threshold than this.
        provenance: data, starting weights, run and options, for the record.
        weights_sha256: of the tensors, or of an exported graph; checked when the file is read.
        equalise_quality: of the JPEG that every image is made first; 0: as it is.
        engine: what computes it: `torch`, or of an exported detector a name of `ENGINES`.
        precision: the numbers in which that computes.
    """

    arch: str
    image_size: int
    geometry: str
    calibration: Calibration = UNCALIBRATED
    threshold: float = 0.5
    unsure: float = 0.0
    provenance: dict[str, Any] = field(default_factory=dict)
    weights_sha256: str = ""
    equalise_quality: int = 0
    engine: str = TORCH
    precision: str = "fp32"
    classes: tuple[str, ...] = CLASSES
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD
    synthdetect: str = __version__
    format: int = FORMAT


class Detector:
    """A network in evaluation mode with its card."""

    def __init__(self, network: nn.Module, card: Card) -> None:
        self.network = network.eval().to(memory_format=torch.channels_last)
        self.card = card
        self.preprocess = Preprocess(card.image_size, card.geometry, card.equalise_quality)

    def calibrated(self, logits: npt.ArrayLike) -> npt.NDArray[np.float64]:
        """The network's logits as log-odds that mean what they say."""
        return self.card.calibration(logits)

    def score(self, squares: npt.NDArray[np.uint8]) -> npt.NDArray[np.float64]:
        """The probability that each preprocessed image is synthetic.

        Args:
            squares: as `preprocess` makes them, shape (images, image_size, image_size, 3).

        Returns:
            Shape (images,).
        """
        with torch.inference_mode():
            logits = self.network(torch.from_numpy(squares).permute(0, 3, 1, 2))
        return np.asarray(expit(self.calibrated(logits.double().numpy())))

    def save(self, path: Path) -> Card:
        """Write the detector to one `.safetensors` file and return the card as written."""
        tensors = tensors_of(self.network)
        card = replace(self.card, weights_sha256=digest_of(tensors))
        path.parent.mkdir(parents=True, exist_ok=True)
        with replace_atomically(path) as temporary:
            save_file(tensors, temporary, metadata={"card": json.dumps(asdict(card))})
        return card

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read a detector. Nothing in the file can execute, and its hash is checked.

        Raises:
            UserError: no such file, damaged, changed since it was written, of a newer format, or
                no detector.
        """
        try:
            with safe_open(path, framework="pt") as file:
                header = json.loads((file.metadata() or {})["card"])
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        except (OSError, SafetensorError, KeyError, ValueError, RecursionError) as error:
            raise UserError(f"{path}: no detector, or a damaged one: {error}") from error
        card = read_card(header, path)
        if card.engine != TORCH:
            raise UserError(f"{path}: its card is of a detector exported to {card.engine}.")
        if digest_of(tensors) != card.weights_sha256:
            raise UserError(f"{path}: the weights are not those the card was written for.")
        network = build(card.arch, card.image_size)
        try:
            network.load_state_dict(tensors)
        except RuntimeError as error:
            reason = shorten(str(error), 300)
            raise UserError(f"{path}: the weights do not fit {card.arch}: {reason}") from error
        return cls(network, card)


def _within(value: Any, low: float, high: float) -> bool:
    """Whether it is a number (true and false are none) within limits, which nan never is."""
    return type(value) in (int, float) and low <= value <= high


_SOUND: dict[str, Callable[[Any], bool]] = {
    "arch": lambda value: isinstance(value, str),
    "geometry": lambda value: isinstance(value, str),
    "engine": lambda value: isinstance(value, str),
    "precision": lambda value: isinstance(value, str),
    "image_size": lambda value: type(value) is int,
    "calibration": lambda value: value.sound,
    "threshold": lambda value: _within(value, 0, math.nextafter(1, 2)),  # which nothing reaches
    "unsure": lambda value: _within(value, 0, 0.5),
    "provenance": lambda value: isinstance(value, dict),
    "equalise_quality": lambda value: type(value) is not bool,
}
"""What must hold of a card that comes from a file, by field."""


def read_card(header: Any, path: Path) -> Card:
    """A card from the header of a file, checked.

    Raises:
        UserError: it is none, of another format, or of what this version does not know.
    """
    if not isinstance(header, dict) or header.get("format") != FORMAT:
        found = header.get("format") if isinstance(header, dict) else header
        raise UserError(f"{path}: card format {found!r}; this version reads {FORMAT}.")
    try:
        fields: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value
            for name, value in header.items()
        }
        knots = tuple((before, after) for before, after in header["calibration"].pop("knots"))
        fields["calibration"] = Calibration(**header["calibration"], knots=knots)
        card = Card(**fields)
    except (TypeError, ValueError, KeyError, AttributeError) as error:
        raise UserError(f"{path}: its card does not fit: {error}") from error
    for name, sound in _SOUND.items():
        if not sound(value := getattr(card, name)):
            raise UserError(f"{path}: its card does not fit: {name} {value!r}.")
    if (card.classes, card.mean, card.std) != (CLASSES, IMAGENET_MEAN, IMAGENET_STD):
        raise UserError(f"{path}: made for other classes or another normalisation.")
    if card.arch not in ARCHITECTURES or card.geometry not in GEOMETRIES:
        raise UserError(f"{path}: unknown architecture or geometry: {card.arch}, {card.geometry}.")
    if card.image_size not in range(16, 4097):
        raise UserError(f"{path}: no side of a square in pixels: {card.image_size!r}.")
    if card.equalise_quality not in range(101):
        raise UserError(f"{path}: no JPEG quality to equalise at: {card.equalise_quality!r}.")
    return card

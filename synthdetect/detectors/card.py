"""The card of a detector: what it takes to use the weights, and where they come from."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from synthdetect import __version__
from synthdetect.datasets.labels import CLASSES
from synthdetect.evaluation.calibration import Calibration
from synthdetect.evaluation.decision import Decision
from synthdetect.images.geometry import Preprocess
from synthdetect.images.options import GEOMETRIES
from synthdetect.models.architectures import ARCHITECTURES
from synthdetect.models.spec import FRONT_ENDS, ModelSpec
from synthdetect.system.errors import UserError

FORMAT = 3
"""Increased when the meaning of a card changes."""

TORCH = "torch"
"""The engine of a detector that was not exported."""


@dataclass(frozen=True, kw_only=True)
class Card:
    """Everything but the weights of a detector.

    Attributes:
        model: What the network is built from.
        geometry: How an image becomes the square that the network sees; a name of `GEOMETRIES`.
        equalise_quality: JPEG quality that every image is encoded at first; 0 leaves it as it is.
        decision: From logits to answers, as chosen on validation.
        provenance: Data, initial weights, run and options, for the record.
        weights_sha256: Hash of the tensors, or of an exported graph; checked when a file is read.
        engine: `torch`, or for an exported detector a name of `ENGINES`.
        precision: The precision in which the engine computes.
        classes: The names of the labels 0 and 1.
        synthdetect: The version that wrote the card.
        format: The format of the card.
    """

    model: ModelSpec
    geometry: str
    equalise_quality: int = 0
    decision: Decision = field(default_factory=Decision)
    provenance: dict[str, Any] = field(default_factory=dict)
    weights_sha256: str = ""
    engine: str = TORCH
    precision: str = "fp32"
    classes: tuple[str, ...] = CLASSES
    synthdetect: str = __version__
    format: int = FORMAT

    @property
    def preprocess(self) -> Preprocess:
        """How the detector preprocesses an image."""
        return Preprocess(self.model.image_size, self.geometry, self.equalise_quality)


def read_card(header: Any, path: Path) -> Card:
    """Read and check a card from the header of a file.

    Args:
        header: The card as JSON read it; cards of format 2 are converted.
        path: The file, for messages.

    Raises:
        UserError: If it is no card, has another format, or names what this version does not know.
    """
    header = current_header(header, path)
    if not isinstance(header, dict) or header.get("format") != FORMAT:
        found = header.get("format") if isinstance(header, dict) else header
        raise UserError(f"{path}: card format {found!r}; this version reads {FORMAT} and 2.")
    try:
        card = Card(
            **{
                **header,
                "model": ModelSpec(**_tuples(header["model"])),
                "decision": _decision(header["decision"]),
                "classes": tuple(header["classes"]),
            }
        )
    except (TypeError, ValueError, KeyError, AttributeError) as error:
        raise UserError(f"{path}: its card does not fit: {error}") from error
    for name, sound in _SOUND.items():
        value: Any = card
        for part in name.split("."):
            value = getattr(value, part)
        if not sound(value):
            raise UserError(f"{path}: its card does not fit: {name} is {value!r}.")
    return card


def _decision(header: Mapping[str, Any]) -> Decision:
    calibration = dict(header["calibration"])
    knots = tuple((before, after) for before, after in calibration.pop("knots"))
    return Decision(**{**header, "calibration": Calibration(**calibration, knots=knots)})


def current_header(header: Any, path: Path) -> Any:
    """Convert the header of a card of format 2 to the present format; return others as they are.

    In format 2 the model specification and the decision were not nested.

    Raises:
        UserError: If a header of format 2 lacks fields.
    """
    if not isinstance(header, dict) or header.get("format") != 2:
        return header
    moved = {
        "model": ("arch", "image_size", "mean", "std"),
        "decision": ("calibration", "threshold", "unsure"),
    }
    try:
        parts = {part: {name: header[name] for name in names} for part, names in moved.items()}
    except KeyError as error:
        raise UserError(f"{path}: its card does not fit: it has no {error}") from error
    parts["model"]["front_end"] = "rgb"
    flat = {name for names in moved.values() for name in names}
    kept = {name: value for name, value in header.items() if name not in flat}
    return {**kept, **parts, "format": FORMAT}


def _tuples(header: Mapping[str, Any]) -> dict[str, Any]:
    return {k: tuple(v) if isinstance(v, list) else v for k, v in header.items()}


def _within(value: Any, low: float, high: float) -> bool:
    """Return whether a value is a number (not a bool) within limits; nan never is."""
    return type(value) in (int, float) and low <= value <= high


def _channels(low: float, high: float) -> Callable[[Any], bool]:
    return lambda value: (
        isinstance(value, tuple)
        and len(value) == 3
        and all(_within(number, low, high) for number in value)
    )


def _known(*tables: Mapping[str, Any]) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, str) and any(value in table for table in tables)


def _whole(low: int, high: int) -> Callable[[Any], bool]:
    return lambda value: type(value) is int and low <= value <= high


_SOUND: dict[str, Callable[[Any], bool]] = {
    "model.arch": _known(ARCHITECTURES),
    "model.front_end": _known(FRONT_ENDS),
    "model.image_size": _whole(16, 4096),
    "model.mean": _channels(0, 1),
    "model.std": _channels(1e-3, 1),
    "geometry": _known(GEOMETRIES),
    "equalise_quality": _whole(0, 100),
    "decision.calibration": lambda value: value.sound,
    # A threshold above 1, which no probability reaches, is possible under threshold_rule=fpr.
    "decision.threshold": lambda value: _within(value, 0, math.nextafter(1, 2)),
    "decision.unsure": lambda value: _within(value, 0, 0.5),
    "engine": lambda value: isinstance(value, str),
    "precision": lambda value: isinstance(value, str),
    "provenance": lambda value: isinstance(value, dict),
    "classes": lambda value: value == CLASSES,
}
"""What must hold of the fields of a card that comes from a file."""

"""The card of a detector: what it takes to use the weights, and where they come from."""

import math
from collections.abc import Callable, Mapping
from dataclasses import MISSING, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from synthdetect import __version__
from synthdetect.datasets.labels import CLASSES
from synthdetect.evaluation.attribution import Attribution
from synthdetect.evaluation.calibration import Calibration
from synthdetect.evaluation.decision import Decision
from synthdetect.images.geometry import Preprocess
from synthdetect.images.options import GEOMETRIES, VIEWS, crop_side, misfit_of_views
from synthdetect.models.spec import (
    FRONT_ENDS,
    PROBES,
    WHOLE_NETWORK,
    ModelSpec,
    architecture,
    is_architecture,
)
from synthdetect.system.arrays import FloatArray
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
        views: The views of an image over which its logits are averaged; a name of `VIEWS`. The
            decision was made under them.
        decision: From logits to answers, as chosen on validation.
        attribution: From the logits of generators to answers, as chosen on validation; None for a
            detector that does not attribute images.
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
    views: str = "single"
    decision: Decision = field(default_factory=Decision)
    attribution: Attribution | None = None
    provenance: dict[str, Any] = field(default_factory=dict)
    weights_sha256: str = ""
    engine: str = TORCH
    precision: str = "fp32"
    classes: tuple[str, ...] = CLASSES
    synthdetect: str = __version__
    format: int = FORMAT

    @property
    def seen_size(self) -> int:
        """Side in pixels of what the network sees: of the square, or of the crops of its views."""
        size = self.model.image_size
        return crop_side(size) if VIEWS[self.views].cropped else size

    def misfit(self, views: str) -> str:
        """Return why the detector cannot score under a name of `VIEWS`; empty if it can."""
        fixed = bool(architecture(self.model.arch).patch)
        misfit = misfit_of_views(views, self.model.image_size, fixed_size=fixed)
        if not misfit and self.engine != TORCH:
            wanted = replace(self, views=views).seen_size
            if wanted != self.seen_size:
                misfit = (
                    f"the detector was exported for images of {self.seen_size} pixels, and these "
                    f"have {wanted}; export the original under {views}"
                )
        return misfit

    def require_views(self, views: str) -> None:
        """Check that the detector can score under a name of `VIEWS`.

        Raises:
            UserError: If its network, or its exported graph, takes images of another size only.
        """
        if misfit := self.misfit(views):
            raise UserError(f"--views {views}: {misfit}.")

    @property
    def preprocess(self) -> Preprocess:
        """How the detector preprocesses an image."""
        return Preprocess(self.model.image_size, self.geometry, self.equalise_quality)

    def attributed(self, labels: npt.ArrayLike, logits: FloatArray) -> npt.NDArray[np.object_]:
        """Return the answers of `Attribution.answer` of a detector that attributes images.

        Args:
            labels: 1 where an image is called synthetic, else 0; of shape (images,).
            logits: Logits of the generators, of shape (images, generators).
        """
        assert self.attribution
        return self.attribution.answer(self.model.generators, labels, logits)


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
    attribution = header.get("attribution")
    try:
        card = Card(
            **{
                **header,
                "model": ModelSpec(**_tuples(header["model"])),
                "decision": _decision(header["decision"]),
                "attribution": Attribution(**attribution) if attribution else None,
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
    if bool(card.attribution) != bool(card.model.generators):
        raise UserError(
            f"{path}: its card does not fit: attribution is {card.attribution!r} for "
            f"{len(card.model.generators)} generators."
        )
    if card.model.generators and card.model.frozen:
        raise UserError(
            f"{path}: its card does not fit: a probe, {card.model.probe}, attributes no images."
        )
    if misfit := card.misfit(card.views):
        raise UserError(f"{path}: its card does not fit: views is {card.views!r}: {misfit}.")
    return card


_MODEL_DEFAULTS = {
    field.name: list(field.default) if isinstance(field.default, tuple) else field.default
    for field in fields(ModelSpec)
    if field.default is not MISSING
}
"""Defaults of the model specification, as JSON has them."""


def _decision(header: Mapping[str, Any]) -> Decision:
    calibration = dict(header["calibration"])
    knots = tuple((before, after) for before, after in calibration.pop("knots"))
    return Decision(**{**header, "calibration": Calibration(**calibration, knots=knots)})


def current_header(header: Any, path: Path) -> Any:
    """Convert the header of an older card to the present one; return what is no card as it is.

    In format 2 the model specification and the decision were not nested. Older cards of format 3
    have no views, which were single, no prior, which is unknown, and fewer fields in the model
    specification, whose defaults are what these networks had.

    Raises:
        UserError: If a header of format 2 lacks fields.
    """
    if isinstance(header, dict) and header.get("format") == 2:
        header = _from_format_2(header, path)
    if not isinstance(header, dict):
        return header
    header = {"views": "single", **header}
    older: dict[str, dict[str, Any]] = {"decision": {"prior": None}, "model": _MODEL_DEFAULTS}
    for part, defaults in older.items():
        if isinstance(header.get(part), dict):
            header[part] = {**defaults, **header[part]}
    return header


def _from_format_2(header: Mapping[str, Any], path: Path) -> dict[str, Any]:
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


def _generators(value: Any) -> bool:
    if not isinstance(value, tuple) or not all(isinstance(name, str) for name in value):
        return False
    return len(value) != 1 and len(value) <= _MOST_GENERATORS and len(set(value)) == len(value)


def _whole(low: int, high: int) -> Callable[[Any], bool]:
    return lambda value: type(value) is int and low <= value <= high


_MOST_GENERATORS = 10_000  # a network of any number would be built before its weights are compared
_TINY = 1e-9  # a prior of 0 or 1 has no logit

_SOUND: dict[str, Callable[[Any], bool]] = {
    "model.arch": lambda value: isinstance(value, str) and is_architecture(value),
    "model.front_end": _known(FRONT_ENDS),
    "model.image_size": _whole(16, 4096),
    "model.mean": _channels(0, 1),
    "model.std": _channels(1e-3, 1),
    "model.generators": _generators,
    "model.probe": _known({WHOLE_NETWORK: None}, PROBES),
    "model.neighbours": _whole(1, 1000),
    "model.hidden": _whole(1, 8192),
    "geometry": _known(GEOMETRIES),
    "equalise_quality": _whole(0, 100),
    "views": _known(VIEWS),
    "decision.calibration": lambda value: value.sound,
    # A threshold above 1, which no probability reaches, is possible under threshold_rule=fpr.
    "decision.threshold": lambda value: _within(value, 0, math.nextafter(1, 2)),
    "decision.unsure": lambda value: _within(value, 0, 0.5),
    "decision.prior": lambda value: value is None or _within(value, _TINY, 1 - _TINY),
    "attribution": lambda value: value is None or value.sound,
    "engine": lambda value: isinstance(value, str),
    "precision": lambda value: isinstance(value, str),
    "provenance": lambda value: isinstance(value, dict),
    "classes": lambda value: value == CLASSES,
}
"""What must hold of the fields of a card that comes from a file."""

"""The options of a network: its architecture, its front-end and its initial weights."""

from typing import Annotated, ClassVar

from pydantic.dataclasses import dataclass

from synthdetect.config.options import CHECKED, Options, option
from synthdetect.config.registry import one_of
from synthdetect.models.architectures import ARCHITECTURES
from synthdetect.models.spec import FRONT_ENDS


@dataclass(frozen=True, kw_only=True, config=CHECKED)
class ModelOptions(Options):
    """Which network is trained, and from which weights it starts."""

    section: ClassVar = "model"

    arch: Annotated[str, one_of(ARCHITECTURES)] = option(
        "resnet18", "Architecture; `synthdetect list architectures` shows all."
    )
    front_end: Annotated[str, one_of(FRONT_ENDS)] = option(
        "rgb", "What the backbone sees of an image; `synthdetect list front_ends` shows all."
    )
    weights: str = option(
        "auto",
        "Initial weights: auto (ImageNet weights if they can be loaded, else random), imagenet "
        "(required), none (random), or a file.",
    )

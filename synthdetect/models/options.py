"""The options of a network: its architecture, its front-end, initial weights and probe."""

from typing import Annotated, ClassVar

from pydantic import AfterValidator
from pydantic.dataclasses import dataclass

from synthdetect.config.options import CHECKED, Options, option
from synthdetect.config.registry import one_of
from synthdetect.models.architectures import ARCHITECTURES
from synthdetect.models.spec import FRONT_ENDS, PROBES, WHOLE_NETWORK, is_architecture


def _known_architecture(name: str) -> str:
    if not is_architecture(name):
        known = ", ".join((*ARCHITECTURES, "timm:NAME"))
        raise ValueError(f"unknown name; known names: {known}")
    return name


@dataclass(frozen=True, kw_only=True, config=CHECKED)
class BackboneOptions(Options):
    """Which network, and with which weights it starts."""

    section: ClassVar = "model"

    arch: Annotated[str, AfterValidator(_known_architecture)] = option(
        "resnet18",
        "Architecture; `synthdetect list architectures` shows all. timm:NAME is any other model of "
        "timm.",
        value="NAME",
        common=True,
    )
    front_end: Annotated[str, one_of(FRONT_ENDS)] = option(
        "rgb", "What the backbone sees of an image; `synthdetect list front_ends` shows all."
    )
    weights: str = option(
        "auto",
        "Initial weights: auto (ImageNet weights if they can be loaded, else random), imagenet "
        "(required), auto_v1 or imagenet_v1 (the same with torchvision's first weights, of one "
        "training recipe for all ResNets), none (random), or a file.",
        value="NAME|FILE",
        common=True,
    )


@dataclass(frozen=True, kw_only=True, config=CHECKED)
class ModelOptions(BackboneOptions):
    """Which network is trained, from which weights it starts, and how much of it learns."""

    section: ClassVar = "model"

    probe: Annotated[str, one_of(WHOLE_NETWORK, PROBES)] = option(
        WHOLE_NETWORK,
        "What learns: none (the whole network), or, on the features of the frozen network, linear, "
        "knn or mlp. `synthdetect list probes` explains each.",
    )
    neighbours: int = option(
        20, "knn: nearest training images that vote.", ge=1, le=1000, value="IMAGES"
    )
    hidden: int = option(256, "mlp: hidden units.", ge=1, le=8192, value="UNITS")

"""The options of preprocessing and data augmentation, and the table of geometries."""

from dataclasses import dataclass as plain_dataclass
from typing import Annotated, ClassVar

from pydantic.dataclasses import dataclass

from synthdetect.config.options import CHECKED, Options, Share, option
from synthdetect.config.registry import Entry, one_of


@plain_dataclass(frozen=True)
class Geometry(Entry):
    """A way to make a square of an image.

    Attributes:
        random: Whether training places the crop at random; evaluation always takes the centre.
        reduces: Whether large images are reduced anyway, so that a JPEG may be decoded at a
            reduced scale.
    """

    random: bool
    reduces: bool


_MODULE = "synthdetect.images.geometry"

GEOMETRIES: dict[str, Geometry] = {
    "resize": Geometry(
        f"{_MODULE}:resize", "The whole image, resized to a square.", random=False, reduces=True
    ),
    "center_crop": Geometry(
        f"{_MODULE}:crop", "A centre crop at native resolution.", random=False, reduces=False
    ),
    "random_crop": Geometry(
        f"{_MODULE}:crop",
        "A crop at native resolution, at a random place in training.",
        random=True,
        reduces=False,
    ),
    "resize_crop": Geometry(
        f"{_MODULE}:resize_crop",
        "The short side resized to 8/7 of the size, then a crop, at a random place in training.",
        random=True,
        reduces=True,
    ),
}
"""How an image becomes a square, by name."""


@dataclass(frozen=True, kw_only=True, config=CHECKED)
class EqualiseOptions(Options):
    """Whether all images are encoded alike before anything else looks at them."""

    section: ClassVar = "image"

    equalise: bool = option(
        False, "Shrink every image a little, encode it as JPEG and decode it, for both classes."
    )
    equalise_quality: int = option(75, "JPEG quality that equalise encodes at.", ge=1, le=100)


@dataclass(frozen=True, kw_only=True, config=CHECKED)
class ImageOptions(EqualiseOptions):
    """What the network sees of an image."""

    section: ClassVar = "image"

    image_size: int = option(224, "Side of the square in pixels.", ge=16, le=4096)
    geometry: Annotated[str, one_of(GEOMETRIES)] = option(
        "resize", "How an image becomes a square; `synthdetect list geometries` explains each."
    )


@dataclass(frozen=True, kw_only=True, config=CHECKED)
class AugmentationOptions(Options):
    """Random changes of training images."""

    section: ClassVar = "augment"

    hflip: Share = option(0.5, "Probability of a horizontal flip.")
    jitter: Share = option(0.1, "Strength of brightness, contrast and saturation jitter.")
    blur: Share = option(0.2, "Probability of a Gaussian blur.")
    blur_sigma: float = option(1.0, "Largest sigma of the blur in pixels.", gt=0.1, le=10)
    rotation: float = option(0.0, "Largest rotation in degrees.", ge=0, le=180)
    random_erasing: Share = option(
        0.0, "Probability that a rectangle is painted over in the mean colour of ImageNet."
    )
    mixup: float = option(
        0.0, "Mixup: alpha of the Beta distribution of the mixing share (0: off).", ge=0, le=100
    )
    cutmix: float = option(
        0.0, "CutMix: alpha of the Beta distribution of the pasted area (0: off).", ge=0, le=100
    )

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
    """

    random: bool


_MODULE = "synthdetect.images.geometry"

GEOMETRIES: dict[str, Geometry] = {
    "resize": Geometry(f"{_MODULE}:resize", "The whole image, resized to a square.", random=False),
    "center_crop": Geometry(f"{_MODULE}:crop", "A centre crop at native resolution.", random=False),
    "random_crop": Geometry(
        f"{_MODULE}:crop",
        "A crop at native resolution, at a random place in training.",
        random=True,
    ),
    "resize_crop": Geometry(
        f"{_MODULE}:resize_crop",
        "The short side resized to 8/7 of the size, then a crop, at a random place in training.",
        random=True,
    ),
}
"""How an image becomes a square, by name."""


@plain_dataclass(frozen=True)
class Views(Entry):
    """A choice of views.

    Attributes:
        cropped: Whether views are crops of the square, of the side `crop_side`.
        trimmed: Whether the greatest and the least logit are left out of the mean.
    """

    cropped: bool = False
    trimmed: bool = False


_VIEWS = "synthdetect.images.views"

VIEWS: dict[str, Views] = {
    "single": Views(f"{_VIEWS}:single", "The image alone."),
    "flip": Views(f"{_VIEWS}:flip", "The image and its mirror image."),
    "five": Views(
        f"{_VIEWS}:five", "Crops of half the side: the corners and the centre.", cropped=True
    ),
    "grid": Views(
        f"{_VIEWS}:grid",
        "Nine crops of half the side, three by three; the greatest and the least logit are left "
        "out of the mean.",
        cropped=True,
        trimmed=True,
    ),
    "texture": Views(
        f"{_VIEWS}:texture",
        "The three of these nine crops with the greatest differences of neighbouring pixels.",
        cropped=True,
    ),
}
"""The views of an image over which its logits are averaged, by name."""

SMALLEST_SQUARE = 16
"""Least side in pixels of what a network sees."""


def crop_side(side: int) -> int:
    """Return the side of the crops that are views of a square: half of its own, rounded up."""
    return -(-side // 2)


def misfit_of_views(views: str, image_size: int, *, fixed_size: bool) -> str:
    """Return why a network cannot have views; empty if it can.

    Args:
        views: A name of `VIEWS`.
        image_size: Side of the square in pixels.
        fixed_size: Whether the network takes squares of `image_size` only.
    """
    if not VIEWS[views].cropped:
        return ""
    if fixed_size:
        return "its crops have half the side, and the architecture takes squares of one size only"
    if image_size < 2 * SMALLEST_SQUARE:
        return (
            f"its crops have half the side, and --image-size {image_size} is less than "
            f"{2 * SMALLEST_SQUARE}"
        )
    return ""


@dataclass(frozen=True, kw_only=True, config=CHECKED)
class EqualiseOptions(Options):
    """Whether all images are encoded alike before anything else looks at them."""

    section: ClassVar = "image"

    equalise: bool = option(
        False, "Shrink every image a little, encode it as JPEG and decode it, for both classes."
    )
    equalise_quality: int = option(
        75, "JPEG quality that equalise encodes at.", ge=1, le=100, value="QUALITY"
    )


@dataclass(frozen=True, kw_only=True, config=CHECKED)
class SquareOptions(EqualiseOptions):
    """How an image becomes the square that the network sees."""

    section: ClassVar = "image"

    image_size: int = option(
        224, "Side of the square in pixels.", ge=16, le=4096, value="PIXELS", common=True
    )
    geometry: Annotated[str, one_of(GEOMETRIES)] = option(
        "resize", "How an image becomes a square; `synthdetect list geometries` explains each."
    )


@dataclass(frozen=True, kw_only=True, config=CHECKED)
class ImageOptions(SquareOptions):
    """What the network sees of an image."""

    section: ClassVar = "image"

    views: Annotated[str, one_of(VIEWS)] = option(
        "single",
        "Views of an image over which its logits are averaged; `synthdetect list views` explains "
        "each. Calibration, threshold, evaluations and the detector use them; the validation of "
        "each epoch uses single, which is faster.",
    )


@dataclass(frozen=True, kw_only=True, config=CHECKED)
class AugmentationOptions(Options):
    """Random changes of training images."""

    section: ClassVar = "augment"

    hflip: Share = option(0.5, "Probability of a horizontal flip.", value="PROBABILITY")
    jitter: Share = option(0.1, "Strength of brightness, contrast and saturation jitter.")
    blur: Share = option(0.2, "Probability of a Gaussian blur.", value="PROBABILITY")
    blur_sigma: float = option(
        1.0, "Largest sigma of the blur in pixels.", gt=0.1, le=10, value="PIXELS"
    )
    rotation: float = option(0.0, "Largest rotation in degrees.", ge=0, le=180, value="DEGREES")
    random_erasing: Share = option(
        0.0,
        "Probability that a rectangle is painted over in the mean colour of ImageNet.",
        value="PROBABILITY",
    )
    crop: int = option(
        0,
        "Side in pixels of the random crop of the square that is trained on (0: the whole square); "
        "evaluation sees the whole square.",
        ge=0,
        value="PIXELS",
    )
    mixup: float = option(
        0.0, "Mixup: alpha of the Beta distribution of the mixing share (0: off).", ge=0, le=100
    )
    cutmix: float = option(
        0.0, "CutMix: alpha of the Beta distribution of the pasted area (0: off).", ge=0, le=100
    )


@dataclass(frozen=True, kw_only=True, config=CHECKED)
class LaunderingOptions(Options):
    """Resampling and re-encoding of training images, so that they are no evidence of synthesis."""

    section: ClassVar = "launder"

    resample_real: Share = option(
        0.0,
        "Probability that a real image is shrunk and enlarged by random filters, by whole and "
        "broken factors, and still called real.",
        value="PROBABILITY",
    )
    resample_synthetic: Share = option(
        0.0,
        "Probability that a synthetic image is shrunk and enlarged likewise, and still called "
        "synthetic.",
        value="PROBABILITY",
    )
    rescale: Share = option(
        0.0,
        "Probability that an image of either class is resized by a factor of 0.5 to 2 and cut to "
        "its size again; it is shrunk only as far as --crop leaves room.",
        value="PROBABILITY",
    )
    degrade: Share = option(
        0.0,
        "Probability that an image of either class is blurred, sharpened, made noisy or mildly "
        "resampled.",
        value="PROBABILITY",
    )
    recompress: Share = option(
        0.0,
        "Probability that an image of either class is then encoded as JPEG or WebP at a random "
        "quality, and decoded.",
        value="PROBABILITY",
    )
    recompress_quality: int = option(
        75, "Lowest quality of recompress.", ge=5, le=98, value="QUALITY"
    )


@dataclass(frozen=True, kw_only=True, config=CHECKED)
class PairOptions(Options):
    """Alignment of synthetic training images with their own photographs."""

    section: ClassVar = "pair"

    pair_mix_pixels: Share = option(
        0.0,
        "Probability that a synthetic image is blended with its own photograph, and still called "
        "synthetic.",
        value="PROBABILITY",
    )
    pair_mix_frequency: Share = option(
        0.0,
        "Probability that the frequencies of a synthetic image above a random cutoff are blended "
        "with those of its own photograph; it is still called synthetic.",
        value="PROBABILITY",
    )
    pair_mix_most: float = option(
        0.8,
        "Largest share of the photograph in both blends; shares are drawn from 0 up.",
        gt=0,
        lt=1,
        value="SHARE",
    )
    align_quality: bool = option(
        False,
        "Encode a synthetic image as JPEG with the quantisation tables and the chroma subsampling "
        "of its own photograph, if that is a JPEG, and decode it.",
    )

    @property
    def needed(self) -> bool:
        """Whether synthetic images need their photographs."""
        return bool(self.pair_mix_pixels or self.pair_mix_frequency or self.align_quality)

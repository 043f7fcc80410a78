"""Embedded ICC colour profiles: colours that are not sRGB's are converted to sRGB.

Only ICC profiles count. Other descriptions of colours, such as the gAMA, cHRM and cICP chunks of
PNG and the colour space of EXIF, are ignored, and an image without a profile is taken as sRGB.
"""

import io
import struct
from functools import lru_cache

import numpy as np
from PIL import Image, ImageCms

MAX_PROFILE_BYTES = 4 * 2**20
"""Greatest size of a profile; a larger one is ignored. Profiles of printers have up to 3 MiB."""

_EQUAL = 2
"""Levels by which two profiles of one colour space may differ: they round their numbers unlike."""

_TAG_TABLE = 128  # offset of the number of tags, after which they are listed


def to_srgb(image: Image.Image, profile: object) -> Image.Image:
    """Convert an image to sRGB, with relative colorimetric intent and black point compensation.

    A profile is ignored, and the image taken as sRGB, if it is damaged, is larger than
    `MAX_PROFILE_BYTES`, belongs to another kind of image, or could take very long to evaluate.
    Colours keep their exact values if the profile is one of sRGB.

    Args:
        image: An image of mode L, RGB or CMYK, which may be changed in place.
        profile: The content of its profile, or what a decoder found in the place of one.

    Returns:
        The image in mode RGB.
    """
    if isinstance(profile, bytes) and 0 < len(profile) <= MAX_PROFILE_BYTES:
        transform = _transform(profile, image.mode)
        if transform is not None:
            in_place = image.mode == "RGB"  # a copy of 100 million pixels takes 400 MB
            return ImageCms.applyTransform(image, transform, inPlace=in_place) or image
    return image.convert("RGB")


@lru_cache(maxsize=8)  # images of one source have one profile
def _transform(profile: bytes, mode: str) -> ImageCms.ImageCmsTransform | None:
    """Return the conversion to sRGB, or None if the profile is unusable or that of sRGB."""
    try:
        if _chains_elements(profile):
            return None
        transform = ImageCms.buildTransform(
            ImageCms.ImageCmsProfile(io.BytesIO(profile)),
            ImageCms.createProfile("sRGB"),
            mode,
            "RGB",
            ImageCms.Intent.RELATIVE_COLORIMETRIC,
            ImageCms.Flags.BLACKPOINTCOMPENSATION,
        )
        if mode == "CMYK":
            return transform
        colours = _colours(mode)
        converted = np.asarray(ImageCms.applyTransform(colours, transform)).astype(int)
    except Exception:  # a damaged profile does not make the pixels unreadable
        return None
    change = np.abs(converted - np.asarray(colours.convert("RGB"))).max()
    return transform if change > _EQUAL else None


def _chains_elements(profile: bytes) -> bool:
    """Return whether a profile has a tag of multi-process elements (D2B0 to D2B3).

    These may chain any number of elements, each of which refers to the same few bytes, so that a
    profile of 128 KB took 2.6 s to prepare. Such profiles are rare, as few programs read the tags.
    """
    (count,) = struct.unpack_from(">I", profile, _TAG_TABLE)
    tags = profile[_TAG_TABLE + 4 : _TAG_TABLE + 4 + 12 * count]
    return any(tags[at : at + 3] == b"D2B" for at in range(0, len(tags), 12))


def _colours(mode: str) -> Image.Image:
    """Return an image of mode L or RGB with colours from all over its range."""
    levels = np.linspace(0, 255, 18).round().astype(np.uint8)
    if mode == "L":
        return Image.fromarray(levels[None])
    cube = np.stack(np.meshgrid(levels, levels, levels), axis=-1)
    return Image.fromarray(cube.reshape(-1, len(levels), 3))

"""Named perturbations of images at several levels, such as recompression, blur and noise.

A perturbation is applied to the image at its native size, before preprocessing, and in the same way
to real and synthetic images: random numbers are seeded by the file's content, the perturbation, its
level and a seed, never by the label, the order of the images or the batch.
"""

import hashlib
import io
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image, ImageFilter, features

from synthdetect.images.reading import BadImage, read_image
from synthdetect.system.errors import UserError

VERSION = 1
"""Version of the perturbations' results; increase it to invalidate cached images."""

ALL = "all"
"""Selects every level of every perturbation."""

Perturb = Callable[[Image.Image, float, np.random.Generator], Image.Image]
"""Function of an RGB image, a level and a random generator that returns another RGB image."""

_SOCIAL = {1080: 85, 720: 75, 480: 60}
"""JPEG quality by longest side in pixels. Typical values: social networks neither document theirs
nor keep them constant."""


@dataclass(frozen=True)
class Perturbation:
    """A perturbation and its levels.

    Attributes:
        apply: function that perturbs an image.
        levels: the levels, from mild to severe.
        unit: quantity and unit of a level, as an axis label.
        help: description.
    """

    apply: Perturb
    levels: tuple[float, ...]
    unit: str
    help: str


@dataclass(frozen=True)
class PerturbationLevel:
    """A perturbation at one of its levels, written `name:level`.

    Attributes:
        name: name in `PERTURBATIONS`.
        level: one of the perturbation's levels.
    """

    name: str
    level: float

    def __str__(self) -> str:
        return f"{self.name}:{self.level:g}"


UNPERTURBED = PerturbationLevel("none", 0.0)
"""Leaves the image unchanged; the reference that perturbed images are compared with."""


def recode(image: Image.Image, kind: str, **options: Any) -> Image.Image:
    """Encode an image in a file format and decode it again."""
    file = io.BytesIO()
    try:
        image.save(file, kind, **options)
    except (
        OSError,
        ValueError,
        RuntimeError,
    ) as error:  # for example, it is larger than the format allows
        raise BadImage(f"cannot be written as {kind}: {error}") from error
    return read_image(file.getvalue())


def _jpeg(image: Image.Image, level: float, rng: np.random.Generator) -> Image.Image:
    return recode(image, "JPEG", quality=int(level))


def _webp(image: Image.Image, level: float, rng: np.random.Generator) -> Image.Image:
    return recode(image, "WEBP", quality=int(level))


def _avif(image: Image.Image, level: float, rng: np.random.Generator) -> Image.Image:
    # One thread and no tiles, so that the result does not depend on the number of cores.
    return recode(image, "AVIF", quality=int(level), speed=8, max_threads=1, autotiling=False)


def _blur(image: Image.Image, level: float, rng: np.random.Generator) -> Image.Image:
    return image.filter(ImageFilter.GaussianBlur(level))


def _resized(image: Image.Image, factor: float) -> Image.Image:
    width, height = (max(1, round(side * factor)) for side in image.size)
    return image.resize((width, height), Image.Resampling.BICUBIC)


def _downscale(image: Image.Image, level: float, rng: np.random.Generator) -> Image.Image:
    return _resized(image, level).resize(image.size, Image.Resampling.BICUBIC)


def _upscale(image: Image.Image, level: float, rng: np.random.Generator) -> Image.Image:
    return _resized(image, level)


def _crop(image: Image.Image, level: float, rng: np.random.Generator) -> Image.Image:
    width, height = (max(1, round(side * level)) for side in image.size)
    left, top = rng.integers(image.width - width + 1), rng.integers(image.height - height + 1)
    return image.crop((int(left), int(top), int(left) + width, int(top) + height))


def _noise(image: Image.Image, level: float, rng: np.random.Generator) -> Image.Image:
    """Add independent noise to each channel, in bands of rows to limit memory."""
    pixels = np.array(image)
    for band in np.array_split(pixels, math.ceil(pixels.size / 2**20)):
        noisy = band + rng.normal(scale=level, size=band.shape)
        band[:] = np.clip(np.rint(noisy), 0, 255)
    return Image.fromarray(pixels)


def _social(image: Image.Image, level: float, rng: np.random.Generator) -> Image.Image:
    longest = max(image.size)
    if longest > level:
        image = _resized(image, level / longest)
    return recode(image, "JPEG", quality=_SOCIAL[int(level)])


PERTURBATIONS: dict[str, Perturbation] = {
    "jpeg": Perturbation(_jpeg, (95, 90, 75, 50, 30), "JPEG quality", "JPEG compression"),
    "webp": Perturbation(_webp, (90, 75, 50, 30), "WebP quality", "lossy WebP compression"),
    "avif": Perturbation(_avif, (90, 75, 50, 30), "AVIF quality", "AVIF compression"),
    "blur": Perturbation(
        _blur, (0.5, 1, 2, 4), "sigma in pixels", "Gaussian blur, in Pillow's approximation"
    ),
    "downscale": Perturbation(
        _downscale, (0.75, 0.5, 0.25), "factor of each side",
        "downscaled, then upscaled to the original size",
    ),
    "upscale": Perturbation(_upscale, (1.5, 2), "factor of each side", "upscaled"),
    "crop": Perturbation(
        _crop, (0.9, 0.75, 0.5), "share of each side", "crop at a random position"
    ),
    "noise": Perturbation(
        _noise, (2, 5, 10, 20), "sigma, of 255", "Gaussian noise on each channel"
    ),
    "social": Perturbation(
        _social, tuple(_SOCIAL), "longest side in pixels",
        "downscaled to a longest side and compressed as JPEG, as by a social network",
    ),
}  # fmt: skip
"""Perturbations by name; file formats only if the installed Pillow can write them."""

for _format in ("webp", "avif"):
    if not features.check(_format):
        del PERTURBATIONS[_format]


def select_perturbations(selection: str) -> list[PerturbationLevel]:
    """Return the perturbation levels that a selection names.

    Args:
        selection: comma-separated names (`jpeg`), names with a level (`jpeg:50`), or `all`.

    Returns:
        `UNPERTURBED`, then each selected level once, in the order of `PERTURBATIONS` and from mild
        to severe.

    Raises:
        UserError: If a name or level is unknown.
    """
    wanted = [part.strip() for part in selection.split(",") if part.strip()]
    levels = [PerturbationLevel(name, x) for name, p in PERTURBATIONS.items() for x in p.levels]
    known = {ALL, *PERTURBATIONS, *map(str, levels)}
    unknown = [part for part in wanted if part not in known]
    if unknown:
        listed = "\n".join(
            f"  {name}: {', '.join(f'{level:g}' for level in perturbation.levels)}"
            for name, perturbation in PERTURBATIONS.items()
        )
        raise UserError(
            f"--robustness: unknown perturbation(s): {', '.join(unknown)}. Give 'all', names, or "
            f"names with a level (jpeg:50). Known perturbations and their levels:\n{listed}"
        )
    selected = [x for x in levels if {ALL, x.name, str(x)} & set(wanted)]
    return [UNPERTURBED, *selected]


def perturb(
    image: Image.Image, perturbation: PerturbationLevel, sha256: str, seed: int
) -> Image.Image:
    """Apply a perturbation to an image.

    Args:
        image: upright RGB image at its native size.
        perturbation: any perturbation level except `UNPERTURBED`.
        sha256: SHA-256 of the image file; together with the perturbation and the seed it determines
            the random numbers.
        seed: seed of the random numbers.

    Raises:
        BadImage: If the perturbation's file format cannot hold the image.
    """
    key = hashlib.sha256(f"{seed} {sha256} {perturbation}".encode()).digest()
    rng = np.random.default_rng(int.from_bytes(key, "big"))
    return PERTURBATIONS[perturbation.name].apply(image, perturbation.level, rng)

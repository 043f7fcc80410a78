"""What happens to pictures on their way through the world: a grid of named perturbations.

They are applied to the picture at its own size, before it becomes the square that a network sees,
and to both classes alike: what is drawn at random is seeded by the file's content, the condition
and a seed, never by the label, the order or the batch.
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
"""Raised when what a perturbation does changes, so that no older cached picture is used."""

ALL = "all"
"""The selection of every level of every perturbation."""

Perturb = Callable[[Image.Image, float, np.random.Generator], Image.Image]

_SOCIAL = {1080: 85, 720: 75, 480: 60}
"""Longest side in pixels, and JPEG quality. Our choice, of the order that people meet; networks
neither document theirs nor keep to them."""


@dataclass(frozen=True)
class Perturbation:
    """One way to change a picture.

    Attributes:
        apply: from an RGB picture, a level and random numbers to another RGB picture.
        levels: from mild to severe.
        unit: what a level is, as an axis says it.
        help: what it does.
    """

    apply: Perturb
    levels: tuple[float, ...]
    unit: str
    help: str


@dataclass(frozen=True)
class Condition:
    """A perturbation at one of its levels."""

    perturbation: str
    level: float

    def __str__(self) -> str:
        return f"{self.perturbation}:{self.level:g}"


UNPERTURBED = Condition("none", 0.0)
"""The picture as it is."""


def _recode(image: Image.Image, kind: str, **options: Any) -> Image.Image:
    """Compress a picture and decode it again."""
    file = io.BytesIO()
    try:
        image.save(file, kind, **options)
    except (OSError, ValueError, RuntimeError) as error:  # longer than the format allows, say
        raise BadImage(f"cannot be written as {kind}: {error}") from error
    return read_image(file.getvalue())


def _jpeg(image: Image.Image, level: float, rng: np.random.Generator) -> Image.Image:
    return _recode(image, "JPEG", quality=int(level))


def _webp(image: Image.Image, level: float, rng: np.random.Generator) -> Image.Image:
    return _recode(image, "WEBP", quality=int(level))


def _avif(image: Image.Image, level: float, rng: np.random.Generator) -> Image.Image:
    # One thread and no tiles: else the result depends on how many cores there are.
    return _recode(image, "AVIF", quality=int(level), speed=8, max_threads=1, autotiling=False)


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
    """Add independent noise to each channel, a band of rows at a time to save memory."""
    pixels = np.array(image)
    for band in np.array_split(pixels, math.ceil(pixels.size / 2**20)):
        noisy = band + rng.normal(scale=level, size=band.shape)
        band[:] = np.clip(np.rint(noisy), 0, 255)
    return Image.fromarray(pixels)


def _social(image: Image.Image, level: float, rng: np.random.Generator) -> Image.Image:
    longest = max(image.size)
    if longest > level:
        image = _resized(image, level / longest)
    return _recode(image, "JPEG", quality=_SOCIAL[int(level)])


PERTURBATIONS: dict[str, Perturbation] = {
    "jpeg": Perturbation(_jpeg, (95, 90, 75, 50, 30), "JPEG quality", "compressed as JPEG"),
    "webp": Perturbation(_webp, (90, 75, 50, 30), "WebP quality", "compressed as lossy WebP"),
    "avif": Perturbation(_avif, (90, 75, 50, 30), "AVIF quality", "compressed as AVIF"),
    "blur": Perturbation(
        _blur, (0.5, 1, 2, 4), "sigma in pixels", "Gaussian blur, as Pillow approximates it"
    ),
    "downscale": Perturbation(
        _downscale, (0.75, 0.5, 0.25), "share of each side", "shrunk, then back to its old size"
    ),
    "upscale": Perturbation(_upscale, (1.5, 2), "factor of each side", "enlarged, and left so"),
    "crop": Perturbation(
        _crop, (0.9, 0.75, 0.5), "share of each side", "a part of it, at a random place"
    ),
    "noise": Perturbation(
        _noise, (2, 5, 10, 20), "sigma, of 255", "Gaussian noise on each channel"
    ),
    "social": Perturbation(
        _social, tuple(_SOCIAL), "longest side in pixels, then JPEG",
        "shrunk to a longest side if it is larger, then JPEG of quality "
        + ", ".join(f"{quality} ({side})" for side, quality in _SOCIAL.items()),
    ),
}  # fmt: skip
"""By name; formats only where this Pillow can write them."""

for _format in ("webp", "avif"):
    if not features.check(_format):
        del PERTURBATIONS[_format]


def select_conditions(selection: str) -> list[Condition]:
    """The conditions that a selection means.

    Args:
        selection: names (`jpeg`), names with a level (`jpeg:50`) or `all`, separated by commas.

    Returns:
        `UNPERTURBED`, with which the others are compared, then what is selected, each once, by the
        order of `PERTURBATIONS` and from mild to severe.

    Raises:
        UserError: an unknown name or level.
    """
    wanted = [part.strip() for part in selection.split(",") if part.strip()]
    conditions = [Condition(name, x) for name, p in PERTURBATIONS.items() for x in p.levels]
    known = {ALL, *PERTURBATIONS, *map(str, conditions)}
    unknown = [part for part in wanted if part not in known]
    if unknown:
        listed = "\n".join(
            f"  {name}: {', '.join(f'{level:g}' for level in perturbation.levels)}"
            for name, perturbation in PERTURBATIONS.items()
        )
        raise UserError(
            f"--robustness: unknown perturbation(s): {', '.join(unknown)}. Give 'all', a name, or "
            f"a name and one of its levels (jpeg:50); known are\n{listed}"
        )
    chosen = [c for c in conditions if {ALL, c.perturbation, str(c)} & set(wanted)]
    return [UNPERTURBED, *chosen]


def perturb(image: Image.Image, condition: Condition, sha256: str, seed: int) -> Image.Image:
    """Change a picture as a condition says.

    Args:
        image: upright RGB, at its own size.
        condition: any but `UNPERTURBED`.
        sha256: of the file's content; with the condition and the seed it decides what is random.
        seed: any number.

    Raises:
        BadImage: the condition's format cannot hold the picture.
    """
    key = hashlib.sha256(f"{seed} {sha256} {condition}".encode()).digest()
    rng = np.random.default_rng(int.from_bytes(key, "big"))
    return PERTURBATIONS[condition.perturbation].apply(image, condition.level, rng)

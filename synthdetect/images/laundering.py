"""Random resampling and re-encoding of training images, which real images meet on their way too.

A detector that is trained on untouched photographs learns to call blurred, enlarged or recompressed
photographs synthetic, because generators blur and enlarge as well. Laundering takes these traces
away as evidence: real images are shrunk and enlarged and keep their label, and images of both
classes are resized, filtered and re-encoded with the same probabilities.

It works on decoded squares with Pillow's codecs, in the processes that read images, so the cache of
decoded images serves it too. The changes of an image depend only on (seed, epoch, row).
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFilter

from synthdetect.images.options import LaunderingOptions
from synthdetect.images.perturbations import recode

Square = npt.NDArray[np.uint8]

_FILTERS = (
    Image.Resampling.BOX,
    Image.Resampling.BILINEAR,
    Image.Resampling.HAMMING,
    Image.Resampling.BICUBIC,
    Image.Resampling.LANCZOS,
)

_WHOLE_FACTORS = (2, 3, 4, 4)
_BROKEN_FACTORS = (1.2, 4.5)
_WHOLE_SHARE = 0.75
"""Share of whole factors. With broken ones alone, a network goes on recognising enlarged images by
the period of a whole enlargement, which is the most frequent one in practice."""

_SCALES = (0.5, 2.0)

_GRID = 24
"""A multiple of every whole factor and of the 8 pixels of a JPEG block."""

_HIGHEST_QUALITY = 98
_WEBP_SHARE = 0.15


@dataclass(frozen=True)
class Laundering:
    """Random resampling, filtering and re-encoding of squares, or of random crops of them.

    Attributes:
        options: The probabilities and strengths.
        crop: Side of the random crop that a square is cut to first; 0 keeps the whole square.
        seed: Seed of the random numbers.
    """

    options: LaunderingOptions
    crop: int
    seed: int

    @property
    def active(self) -> bool:
        """Whether any image can be changed."""
        o = self.options
        resampled = o.resample_real or o.resample_synthetic or o.rescale
        return bool(self.crop or resampled or o.degrade or o.recompress)

    def __call__(self, square: Square, *, target: float, epoch: int, row: int) -> Square:
        """Change one square at random.

        The square is extended by reflection at first and cut out again at last, so that the grids
        of resampling and of JPEG's blocks lie at a random place.

        Args:
            square: uint8, shape (side, side, 3).
            target: 0 (real) or 1 (synthetic), by which it is resampled; nan if it is not known,
                and then it is not.
            epoch: Number of the epoch.
            row: Row of the image in its dataset.

        Returns:
            uint8, shape (side, side, 3).
        """
        o = self.options
        rng = np.random.default_rng(np.random.SeedSequence([self.seed, epoch, row], spawn_key=(1,)))
        of_class = o.resample_real if target == 0 else o.resample_synthetic if target == 1 else 0
        resample, degrade, recompress = rng.random(3) < (of_class, o.degrade, o.recompress)
        side = self.crop or len(square)
        window = side
        if o.rescale and rng.random() < o.rescale:
            lowest, highest = max(_SCALES[0], side / len(square)), _SCALES[1]
            window = round(side / np.exp(rng.uniform(np.log(lowest), np.log(highest))))
        if self.crop or window < len(square):
            left, top = (int(x) for x in rng.integers(0, len(square) - window + 1, size=2))
            square = square[top : top + window, left : left + window]
        if window != side:
            method = _FILTERS[rng.integers(len(_FILTERS))]
            square = np.asarray(Image.fromarray(square).resize((side, side), method))
        if not (resample or degrade or recompress):
            return square
        total = -(-(side + 8) // _GRID) * _GRID
        left, top = (int(x) for x in rng.integers(0, total - side + 1, size=2))
        margins = ((top, total - side - top), (left, total - side - left), (0, 0))
        image = Image.fromarray(np.pad(square, margins, mode="symmetric"))
        if resample:
            image = _resampled(image, _factor(rng), rng)
        if degrade:
            image = _degraded(image, rng)
        if recompress:
            image = _recompressed(image, o.recompress_quality, rng)
        return np.asarray(image.crop((left, top, left + side, top + side)))


def _factor(rng: np.random.Generator) -> float:
    """Draw the factor by which an image is shrunk, and then enlarged."""
    if rng.random() < _WHOLE_SHARE:
        return float(rng.choice(_WHOLE_FACTORS))
    return float(np.exp(rng.uniform(*np.log(_BROKEN_FACTORS))))


def _resampled(image: Image.Image, factor: float, rng: np.random.Generator) -> Image.Image:
    """Shrink an image by a factor and enlarge it to its size, by two random filters."""
    down, up = rng.integers(len(_FILTERS), size=2)
    width, height = (max(1, round(side / factor)) for side in image.size)
    return image.resize((width, height), _FILTERS[down]).resize(image.size, _FILTERS[up])


def _degraded(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Blur an image, sharpen it, add noise, or resample it mildly: one of these at random."""
    change = rng.integers(4)
    if change == 0:
        return image.filter(ImageFilter.GaussianBlur(rng.uniform(0.3, 1.5)))
    if change == 1:
        return image.filter(
            ImageFilter.UnsharpMask(rng.uniform(0.5, 2), int(rng.integers(20, 120)))
        )
    if change == 2:
        noisy = np.asarray(image) + rng.normal(scale=rng.uniform(1, 8), size=(*image.size[::-1], 3))
        return Image.fromarray(np.clip(np.rint(noisy), 0, 255).astype(np.uint8))
    return _resampled(image, rng.uniform(1.1, 2), rng)


def _recompressed(image: Image.Image, lowest: int, rng: np.random.Generator) -> Image.Image:
    """Encode an image as JPEG, or sometimes as WebP, at a random quality, and decode it."""
    quality = int(rng.integers(lowest, _HIGHEST_QUALITY + 1))
    if rng.random() < _WEBP_SHARE:
        return recode(image, "WEBP", quality=quality, method=2)
    return recode(image, "JPEG", quality=quality, subsampling=int(rng.choice((0, 2))))

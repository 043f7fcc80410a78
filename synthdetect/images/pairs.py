"""Alignment of a synthetic image with the photograph of which it is a regeneration.

A detector may tell regenerations from their photographs by whatever else differs: the quality of
their JPEG files, or one band of frequencies. Dual Data Alignment (Chen et al. 2025,
https://arxiv.org/abs/2505.14359) takes that away. A synthetic image is encoded as its photograph
was, is mixed with it in pixels and in frequencies, and is still called synthetic.
"""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, JpegImagePlugin
from scipy.fft import dctn, idctn

from synthdetect.images.options import PairOptions
from synthdetect.images.perturbations import recode
from synthdetect.images.reading import open_image, read_image

Square = npt.NDArray[np.uint8]
Pixels = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Pairs:
    """Pairs of a synthetic image and its photograph, and how the one is aligned with the other.

    Attributes:
        options: The probabilities and strengths.
        photographs: Row of the photograph of each image, shape (images,); -1 where there is none.
        seed: Seed of the random numbers.
    """

    options: PairOptions
    photographs: npt.NDArray[np.int64]
    seed: int

    def mixed(
        self, square: Square, photograph: Callable[[], Square], *, epoch: int, row: int
    ) -> Square:
        """Mix a synthetic image with its photograph at random.

        Args:
            square: uint8, shape (side, side, 3).
            photograph: Returns the same place of the photograph; called only if it is needed.
            epoch: Number of the epoch.
            row: Row of the synthetic image in its dataset.

        Returns:
            uint8, shape (side, side, 3).
        """
        o = self.options
        rng = np.random.default_rng(np.random.SeedSequence([self.seed, epoch, row], spawn_key=(2,)))
        pixels, frequency = rng.random(2) < (o.pair_mix_pixels, o.pair_mix_frequency)
        if not (pixels or frequency):
            return square
        result, real = square.astype(np.float32), photograph().astype(np.float32)
        if pixels:
            result += np.float32(rng.uniform(0, o.pair_mix_most)) * (real - result)
        if frequency:
            share = np.float32(rng.uniform(0, o.pair_mix_most))
            result += share * high_pass(real - result, rng.uniform())
        return np.clip(np.rint(result), 0, 255).astype(np.uint8)


def high_pass(image: Pixels, cutoff: float) -> Pixels:
    """Keep the frequencies of an image from a cutoff upwards, by the discrete cosine transform.

    Args:
        image: float32, shape (height, width, 3).
        cutoff: Lowest radius in the plane of frequencies that is kept, where 1 is the highest
            frequency along a side: 0 keeps all.

    Returns:
        float32, shape (height, width, 3).
    """
    down, across = (np.arange(side) / side for side in image.shape[:2])
    spectrum = dctn(image, axes=(0, 1), norm="ortho")
    spectrum[np.hypot(down[:, None], across) < cutoff] = 0
    result: Pixels = idctn(spectrum, axes=(0, 1), norm="ortho")
    return result


def encoded_alike(data: bytes, photograph: bytes) -> Image.Image:
    """Decode a synthetic image as if its file had been encoded as its photograph's was.

    It is encoded at its native size, so that the blocks of both lie at the same places, with the
    quantisation tables and the chroma subsampling of the photograph. A quality would have to be
    estimated from the tables, and not every encoder uses the tables of a quality.

    Args:
        data: Content of the file of the synthetic image.
        photograph: Content of the file of its photograph.

    Returns:
        The upright RGB image; without another encoding if the photograph is no JPEG, or if the file
        of the synthetic image is a JPEG with the same tables and subsampling.

    Raises:
        BadImage: If one of the files cannot be read.
    """
    image, wanted = read_image(data), _encoding(photograph)
    return image if wanted in ({}, _encoding(data)) else recode(image, "JPEG", **wanted)


def _encoding(data: bytes) -> dict[str, Any]:
    """Return Pillow's options for the encoding of a JPEG file; none for a file of another format.

    Luminance has the first table and chroma the second, if there is one. Pillow says -1 for files
    of one channel or four, in which nothing is subsampled, and for subsamplings of colours that it
    cannot write, for which there are no options either.
    """
    image = open_image(data)
    if not isinstance(image, JpegImagePlugin.JpegImageFile):
        return {}
    subsampling = JpegImagePlugin.get_sampling(image)
    if subsampling < 0 and len(image.layer) == 3:
        return {}
    tables = [image.quantization[component[3]] for component in image.layer[:2]]
    return {"qtables": tables, "subsampling": max(0, subsampling)}


def aligned_hashes(hashes: Sequence[str], photographs: npt.NDArray[np.int64]) -> list[str]:
    """Name the contents from which squares are made if qualities are aligned.

    Args:
        hashes: SHA-256 of each image.
        photographs: Row of the photograph of each image, shape (images,); -1 where there is none.

    Returns:
        A SHA-256 of both files of a pair for an image with a photograph, and its own for another.
    """
    return [
        own if row < 0 else hashlib.sha256(f"{own} {hashes[row]}".encode()).hexdigest()
        for own, row in zip(hashes, photographs, strict=True)
    ]

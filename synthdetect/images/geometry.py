"""Preprocessing: from an image of any size to the square that the network sees.

Throughout the package, a square is the preprocessed image: the RGB array of shape (image_size,
image_size, 3), uint8, that is the input of the network.

The geometry decides which traces of a generator survive. Resizing blurs the high frequencies, in
which generators leave fingerprints. Cropping keeps them but discards a part of the image. The
geometry is therefore an option, which is logged and stored in the card of the model.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image

from synthdetect.images.options import GEOMETRIES
from synthdetect.images.reading import equalise, read_image

Place = tuple[float, float]
"""Horizontal and vertical position of a crop: 0 is left or top, 1 is right or bottom."""

CENTRE: Place = (0.5, 0.5)

SQUARE_VERSION = 3
"""Version of the squares, increased when an image gives another square than before. Version 1
decoded JPEGs at a reduced scale if they were more than four times as large as the square, and
ignored ICC profiles. Version 2 enlarged images that are smaller than a crop at native resolution.
"""


def resize(image: Image.Image, size: int, place: Place) -> Image.Image:
    return image.resize((size, size), Image.Resampling.BILINEAR)


def crop(image: Image.Image, size: int, place: Place) -> Image.Image:
    """Crop at native resolution. A smaller image is continued by its mirror image on all sides.

    Enlarging it would take the traces of a generator out of reach, and leave those of resizing.
    """
    width, height = min(size, image.width), min(size, image.height)
    left, top = round(place[0] * (image.width - width)), round(place[1] * (image.height - height))
    part = image.crop((left, top, left + width, top + height))
    if width == height == size:
        return part
    across, down = size - width, size - height
    margins = ((down // 2, down - down // 2), (across // 2, across - across // 2), (0, 0))
    return Image.fromarray(np.pad(np.asarray(part), margins, mode="reflect"))


def resize_crop(image: Image.Image, size: int, place: Place) -> Image.Image:
    """Resize the short side to 256/224 of the crop, then crop, as is usual for ImageNet.

    Only the region of the crop is resized: for an image of 1 by 60,000 pixels, resizing all of it
    would take gigabytes.
    """
    side = size * min(image.size) / round(size * 256 / 224)
    left, top = place[0] * (image.width - side), place[1] * (image.height - side)
    box = (left, top, min(left + side, image.width), min(top + side, image.height))
    return image.resize((size, size), Image.Resampling.BILINEAR, box=box)


@dataclass(frozen=True)
class Preprocess:
    """Preprocessing from the bytes of a file to a square, without normalisation.

    The square depends on the decoded pixels alone, whatever format stores them. For that, images of
    every format and size are decoded in full and resized in one step. A reduced decoding, which
    only JPEG offers, or a step of averaging, which only large images can take, is faster but shifts
    the energy of high frequencies by some percent (`benchmarks/reading.py` measures both), and so
    tells the formats or sizes of images, and thereby often the classes, apart.

    Attributes:
        image_size: Side of the square in pixels.
        geometry: A name in `GEOMETRIES`.
        equalise_quality: If positive, every image is first shrunk slightly, encoded as a JPEG of
            this quality and decoded (see `equalise`), so that neither format nor quality separates
            the classes. Differences in size remain, since resizing all images to one size would
            itself leave traces of them.
    """

    image_size: int
    geometry: str
    equalise_quality: int = 0

    def __call__(self, data: bytes, place: Place = CENTRE) -> npt.NDArray[np.uint8]:
        """Decode and preprocess an image.

        Args:
            data: Content of the file.
            place: Position of the crop.

        Returns:
            The square: uint8, shape (image_size, image_size, 3).

        Raises:
            BadImage: If the image cannot be read, or is to be equalised and too large for a JPEG.
        """
        return self.square(read_image(data), place)

    def square(self, image: Image.Image, place: Place = CENTRE) -> npt.NDArray[np.uint8]:
        """Preprocess an image that is already decoded, upright and RGB.

        Args:
            image: The image.
            place: Position of the crop.

        Returns:
            The square: uint8, shape (image_size, image_size, 3).

        Raises:
            BadImage: If the image is to be equalised and is too large for a JPEG.
        """
        if self.equalise_quality:
            image = equalise(image, self.equalise_quality)
        return np.asarray(GEOMETRIES[self.geometry].load()(image, self.image_size, place))

    @property
    def random(self) -> bool:
        """Whether the position of the crop is random in training."""
        return GEOMETRIES[self.geometry].random

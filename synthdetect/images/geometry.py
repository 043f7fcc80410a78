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


def resize(image: Image.Image, size: int, place: Place) -> Image.Image:
    return image.resize((size, size), Image.Resampling.BILINEAR)


def crop(image: Image.Image, size: int, place: Place) -> Image.Image:
    """Crop at native resolution. Only an image smaller than the crop is enlarged."""
    return _scaled_crop(image, size, min(1.0, min(image.size) / size), place)


def resize_crop(image: Image.Image, size: int, place: Place) -> Image.Image:
    """Resize the short side to 256/224 of the crop, then crop, as is usual for ImageNet."""
    return _scaled_crop(image, size, min(image.size) / round(size * 256 / 224), place)


def _scaled_crop(image: Image.Image, size: int, scale: float, place: Place) -> Image.Image:
    """Crop a region whose side is `scale` times `size`, and resize only this region.

    Resizing the whole image first would take gigabytes for an image of 1 by 60,000 pixels.
    """
    side = size * scale
    left, top = place[0] * (image.width - side), place[1] * (image.height - side)
    if scale == 1:
        left, top = round(left), round(top)
        return image.crop((left, top, left + size, top + size))
    box = (left, top, min(left + side, image.width), min(top + side, image.height))
    return image.resize((size, size), Image.Resampling.BILINEAR, box=box)


@dataclass(frozen=True)
class Preprocess:
    """Preprocessing from the bytes of a file to a square, without normalisation.

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
        # At twice the size, errors of libjpeg's reduced decoding are below the blur of resizing.
        # Images to equalise are decoded in full: only JPEGs can be reduced, so that a reduced scale
        # would reveal the format.
        reduces = GEOMETRIES[self.geometry].reduces and not self.equalise_quality
        return self.square(read_image(data, at_least=2 * self.image_size if reduces else 0), place)

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

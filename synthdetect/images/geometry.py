"""How a picture of any size becomes a square: a choice that decides which traces survive.

Resizing blurs the high frequencies in which generators leave their fingerprints; cropping keeps
them but sees less of the picture. So it is an option, it is logged, and it travels with the model.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image

from synthdetect.images.options import GEOMETRIES
from synthdetect.images.reading import equalised, read_image

Place = tuple[float, float]
"""Where a crop lies: 0 is left or top, 1 is right or bottom."""

CENTRE: Place = (0.5, 0.5)


def resize(image: Image.Image, size: int, place: Place) -> Image.Image:
    return image.resize((size, size), Image.Resampling.BILINEAR)


def crop(image: Image.Image, size: int, place: Place) -> Image.Image:
    """Crop at native resolution; only a picture smaller than the crop is enlarged."""
    return _scaled_crop(image, size, min(1.0, min(image.size) / size), place)


def resize_crop(image: Image.Image, size: int, place: Place) -> Image.Image:
    """Short side to 256/224 of the crop, then crop: ImageNet's evaluation protocol."""
    return _scaled_crop(image, size, min(image.size) / round(size * 256 / 224), place)


def _scaled_crop(image: Image.Image, size: int, scale: float, place: Place) -> Image.Image:
    """Crop a square whose side is `scale` times `size`, and resize only that.

    Resizing first would unpack a picture of 1 by 60,000 pixels to gigabytes.
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
    """From a file's bytes to the square that a network sees, up to its normalisation.

    Attributes:
        image_size: side of the square in pixels.
        geometry: a name of `GEOMETRIES`.
        equalise_quality: where positive, every image is first shrunk a little, encoded as a JPEG
            of this quality and decoded, so that neither format nor quality tells the classes
            apart. Differences in size stay: whatever removed them would leave traces of them.
    """

    image_size: int
    geometry: str
    equalise_quality: int = 0

    def __call__(self, data: bytes, place: Place = CENTRE) -> npt.NDArray[np.uint8]:
        """Return RGB pixels of shape (image_size, image_size, 3), 0 to 255.

        Raises:
            BadImage: the bytes are no readable image, or one that no JPEG can hold.
        """
        # Twice the size wanted: libjpeg's reduced decoding then stays below what resizing blurs.
        # For equalising, in full: a reduced scale, which only JPEGs have, would tell the format.
        reduces = GEOMETRIES[self.geometry].reduces and not self.equalise_quality
        return self.square(read_image(data, at_least=2 * self.image_size if reduces else 0), place)

    def square(self, image: Image.Image, place: Place = CENTRE) -> npt.NDArray[np.uint8]:
        """Return the same of a picture that is decoded already, upright and RGB.

        Raises:
            BadImage: it is to be equalised, and no JPEG can hold it.
        """
        if self.equalise_quality:
            image = equalised(image, self.equalise_quality)
        return np.asarray(GEOMETRIES[self.geometry].load()(image, self.image_size, place))

    @property
    def random(self) -> bool:
        """Whether training places the crop at random."""
        return GEOMETRIES[self.geometry].random

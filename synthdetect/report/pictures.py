"""The pictures of a page, as small as a page allows: WebP in place of the recorded PNG."""

import io
from collections.abc import Sequence

from PIL import Image

BUDGET = 1_350_000
"""Bytes that all pictures of a page may have together; base64 adds a third, and 2 MB is a page."""

_LEVELS = ((80, 1.0, 1.0), (60, 1.0, 0.7), (45, 1.0, 0.55), (45, 0.7, 0.35), (45, 0.5, 0.2))
"""Quality of WebP, scale of the sides, and about the share of the first level's size."""

_COLOURS = 4096  # a figure of lines and areas has fewer, a figure with photographs more
_SHARP = 25_000  # bytes up to which a figure of lines is kept without loss
_SMALL = 400_000  # pixels of a figure that may be so small; encoding without loss takes long
_LONGEST = 16_383  # pixels of a side that WebP can have
_MOST_PIXELS = 40_000_000  # of a picture that is encoded anew


def encoded(pictures: Sequence[bytes]) -> list[tuple[str, bytes]]:
    """Encode pictures by the best level at which they stay within the `BUDGET` together.

    Args:
        pictures: Contents of PNG files.

    Returns:
        For each, its media type and content. A file that Pillow cannot read stays as it is.
    """
    images = [_read(picture) for picture in pictures]
    sharp = [_lossless(image) if image else None for image in images]
    found: list[tuple[str, bytes]] = []
    size = 0
    for quality, scale, share in _LEVELS:
        if found and size * share > BUDGET and share > _LEVELS[-1][2]:
            continue  # encoding takes long, and this would not do
        found = [
            ("image/png", picture)
            if image is None
            else ("image/webp", _smaller(lossless, image, quality, scale))
            for picture, image, lossless in zip(pictures, images, sharp, strict=True)
        ]
        total = sum(len(content) for _, content in found)
        if total <= BUDGET:
            break
        size = size or total
    return found


def _read(picture: bytes) -> Image.Image | None:
    try:
        with Image.open(io.BytesIO(picture), formats=("PNG",)) as image:
            if image.width * image.height > _MOST_PIXELS or max(image.size) > _LONGEST:
                return None
            return image.convert("RGBA" if "A" in image.getbands() else "RGB")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return None


def _lossless(image: Image.Image) -> bytes | None:
    """Encode a figure of few colours without loss; None for any other."""
    if image.width * image.height > _SMALL or image.getcolors(_COLOURS) is None:
        return None
    return _webp(image, lossless=True)


def _smaller(lossless: bytes | None, image: Image.Image, quality: int, scale: float) -> bytes:
    if lossless is not None and len(lossless) <= _SHARP:
        return lossless
    if scale < 1:
        width, height = (max(1, round(side * scale)) for side in image.size)
        image = image.resize((width, height))
    lossy = _webp(image, quality=quality)
    return min(filter(None, (lossless, lossy)), key=len)


def _webp(image: Image.Image, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, "WEBP", method=2, **options)  # twice as fast as the default, and 5 % larger
    return file.getvalue()

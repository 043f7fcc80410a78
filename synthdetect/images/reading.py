"""Decode untrusted image files to upright sRGB.

Training, inference and serving all call `read_image`, so that an image gives the same pixels
everywhere.
"""

import hashlib
import io
import stat
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, TiffImagePlugin, UnidentifiedImageError, features

from synthdetect.images.profiles import to_srgb

Image.MAX_IMAGE_PIXELS = None  # `open_image` checks the size itself, with an error not a warning

# Ignore warnings such as "Corrupt EXIF data". The filter is set once for the process, because
# filters set around each call would race between the threads that read images.
warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")

MAX_PIXELS = 100_000_000
"""Greatest number of pixels. Larger images are rejected before decoding, since a small file can
decode to gigabytes."""

MAX_BYTES = 256 * 2**20
"""Greatest size of a file, or of an uncompressed member of an archive. Larger ones are not read."""

EQUALISED_SCALE = 0.85
"""Scale of `equalise`. It turns 8 pixels into 6.8, so that the blocks of an earlier JPEG encoding
do not coincide with those of the new one."""

FORMATS = tuple(
    name
    for name in ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF", "PPM", "AVIF", "JPEG2000")
    if not (name == "AVIF" and not features.check("avif"))
)
"""Formats that are decoded. Others are rejected: Pillow's EPS reader, for example, would run
Ghostscript on an untrusted file."""

_HEIC_BRANDS = (
    b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1",
)  # fmt: skip
AVIF_BRANDS = (b"avif", b"avis")
"""The brands at the beginning of AVIF files."""

_ORIENTATION_TAG = 0x0112
_TRANSPOSE = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_WIDE_GREY = ("I", "I;16", "I;16L", "I;16B", "I;16N")
_GREY = ("1", "L", "LA", "La")
_WITH_ALPHA = ("RGBA", "LA", "PA", "La", "RGBa")

# Luminance quantisation table of the JPEG standard (ITU-T T.81, table K.1). libjpeg scales it by
# the quality; the sums of the scaled tables identify the quality.
_T81_LUMINANCE = np.array(
    [16, 11, 10, 16, 24, 40, 51, 61, 12, 12, 14, 19, 26, 58, 60, 55, 14, 13, 16, 24, 40, 57, 69, 56,
     14, 17, 22, 29, 51, 87, 80, 62, 18, 22, 37, 56, 68, 109, 103, 77, 24, 35, 55, 64, 81, 104, 113,
     92, 49, 64, 78, 87, 103, 121, 120, 101, 72, 92, 95, 98, 112, 100, 103, 99]
)  # fmt: skip
_SCALES = np.array([5000 // q if q < 50 else 200 - 2 * q for q in range(1, 101)])
_QUALITY_SUMS = np.clip((_T81_LUMINANCE[None] * _SCALES[:, None] + 50) // 100, 1, 255).sum(axis=1)


class BadImage(Exception):
    """An image cannot be read. The message is a short reason without the name of the file."""


def read_file(file: Path) -> bytes:
    """Read the content of an image file.

    Raises:
        BadImage: If the file is a device or a pipe, or larger than `MAX_BYTES`.
        OSError: If the file cannot be read.
    """
    status = file.stat()
    # Reading a named pipe would block, and some devices never end. Reading a folder is an OSError.
    if not (stat.S_ISREG(status.st_mode) or stat.S_ISDIR(status.st_mode)):
        raise BadImage("not a regular file")
    check_size(status.st_size)
    return file.read_bytes()


def check_size(size: int, *, most: int = MAX_BYTES) -> None:
    """Check the size of a file in bytes.

    Raises:
        BadImage: If it is greater than `most`.
    """
    if size > most:
        raise BadImage(f"{size:,} bytes are more than the limit of {most:,}")


def read_image(data: bytes) -> Image.Image:
    """Decode an image to upright sRGB.

    The EXIF orientation is applied, colours are converted to sRGB by the image's ICC profile (see
    `to_srgb`), CMYK and palettes are converted, transparency is composited on white, and animations
    give their first frame. 16-bit grey is scaled to 8 bits. Grey TIFFs of 32-bit integers do not
    say which value is white: values up to 255 are taken for 8 bits, and values up to 65,535 for 16.

    Args:
        data: Content of the file.

    Returns:
        The image, without the metadata of the file.

    Raises:
        BadImage: If the content is no image, is truncated or damaged, has more than `MAX_PIXELS`
            pixels, or has floating-point or integer pixels with no defined white level.
    """
    with _pillow_errors():
        image = open_image(data)
        image.load()
        orientation = _orientation(image)
        image = to_srgb(_opaque(image), image.info.get("icc_profile"))
        if orientation in _TRANSPOSE:
            image = image.transpose(_TRANSPOSE[orientation])
        image.info.clear()  # some encoders would write the profile, which is applied already
        return image


def equalise(image: Image.Image, quality: int) -> Image.Image:
    """Give an RGB image the same encoding as all others, whatever its format was.

    The image is shrunk to `EQUALISED_SCALE`, encoded as a JPEG with 4:2:0 chroma, and decoded.
    Without shrinking, the blocks of an earlier JPEG encoding coincide with the new ones and remain
    detectable: on real photographs of the sample, decision trees on block statistics separated
    former JPEGs of quality 50 to 96 from former PNGs with an AUC of 0.83 to 1 (0.51 at exactly the
    same quality). With shrinking the AUC was 0.47 to 0.63 (0.63 for quality 50, 0.53 from 85 on).

    Args:
        image: Upright RGB image of any size.
        quality: JPEG quality, 1 to 100.

    Raises:
        BadImage: If a side is longer than the JPEG format allows.
    """
    size = [max(1, round(side * EQUALISED_SCALE)) for side in image.size]
    file = io.BytesIO()
    with _pillow_errors():
        shrunk = image.resize((size[0], size[1]), Image.Resampling.BILINEAR)
        shrunk.save(file, "JPEG", quality=quality, subsampling="4:2:0")
    return read_image(file.getvalue())


def open_image(data: bytes, *, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """Open an image and check its size without decoding it.

    Args:
        data: Content of the file.
        max_pixels: Greatest number of pixels.

    Raises:
        BadImage: If the header is that of no known format, or the image is too large.
    """
    if not data:
        raise BadImage("the file is empty")
    with _pillow_errors():
        formats = (*FORMATS, *_heic_formats()) if is_heic(data) else FORMATS
        image = Image.open(io.BytesIO(data), formats=formats)
        width, height = image.size
    if width * height > max_pixels:
        raise BadImage(f"{width}x{height} pixels are more than the limit of {max_pixels:,}")
    return image


def is_heic(data: bytes) -> bool:
    """Return whether a file says that it is HEIC or HEIF; AVIF, which Pillow reads itself, is not.

    Args:
        data: Content of the file.
    """
    brands = data[8 : 8 + 64] if data[4:8] == b"ftyp" else b""
    return data[8:12] in _HEIC_BRANDS and b"avif" not in brands


@cache
def _heic_formats() -> tuple[str, ...]:
    """Register the decoder of HEIC, and return the format's name.

    Raises:
        BadImage: If it is not installed.
    """
    if find_spec("pillow_heif") is None:
        raise BadImage('HEIC needs pillow-heif; pip install "synthdetect[heic]"')
    import pillow_heif

    pillow_heif.register_heif_opener(thumbnails=False)
    return ("HEIF",)


def probe_image(data: bytes) -> dict[str, Any]:
    """Describe an image file for the manifest.

    Returns:
        `sha256` of the content, `width` and `height` in pixels as stored, `format` (of the content,
        regardless of the suffix), `mode` (Pillow's colour mode), `jpeg_quality` (1 to 100,
        estimated from the quantisation table; 0 for other formats) and `exif` (whether the file has
        EXIF metadata).

    Raises:
        BadImage: If `read_image` cannot read the image, which is decoded completely to find out.
    """
    read_image(data)
    return describe_image(data)


def describe_image(data: bytes) -> dict[str, Any]:
    """Describe an image that `read_image` can read, as `probe_image` does, without decoding it."""
    image = open_image(data)
    return {
        "sha256": hashlib.sha256(data).hexdigest(),
        "width": image.width,
        "height": image.height,
        "format": str(image.format),
        "mode": image.mode,
        "jpeg_quality": _jpeg_quality(image),
        "exif": "exif" in image.info,
    }


@contextmanager
def _pillow_errors() -> Iterator[None]:
    """Turn all exceptions of a decoder into `BadImage`.

    Pillow's plugins raise OSError, SyntaxError, ValueError, struct.error and more on damaged files,
    and the set may grow. For untrusted files each of them means that the image is unreadable.
    """
    try:
        yield
    except BadImage:
        raise
    except UnidentifiedImageError as error:
        raise BadImage("not an image of a known format") from error
    except Exception as error:
        raise BadImage(str(error) or type(error).__name__) from error


def _orientation(image: Image.Image) -> int:
    try:
        return int(image.getexif().get(_ORIENTATION_TAG, 1))
    except Exception:  # damaged metadata does not make the pixels unreadable
        return 1


def _opaque(image: Image.Image) -> Image.Image:
    """Return the image in mode L, RGB or CMYK, composited on white where it is transparent."""
    transparent = "transparency" in image.info or image.mode in _WITH_ALPHA
    if image.mode in ("L", "RGB", "CMYK") and not transparent:
        return image
    if image.mode in _WIDE_GREY:
        return _eight_bits(image)
    if image.mode == "F":
        raise BadImage("floating-point pixels have no defined white level; store 8 or 16 bits")
    grey = image.mode in _GREY
    if transparent:
        layer = image.convert("RGBA")
        white = Image.new("RGBA", layer.size, (255, 255, 255, 255))
        image = Image.alpha_composite(white, layer)
    return image.convert("L" if grey else "RGB")


def _eight_bits(image: Image.Image) -> Image.Image:
    values = np.asarray(image)
    lowest, highest = int(values.min()), int(values.max())
    if lowest < 0 or highest > 65535:
        raise BadImage(
            f"integer pixels from {lowest:,} to {highest:,} have no defined white level; "
            "store 8 or 16 bits"
        )
    # Pillow has one mode, I, for PGM files and signed TIFFs of 16 bits and for TIFFs of 32 bits.
    has_32_bits = 32 in getattr(image, "tag_v2", {}).get(TiffImagePlugin.BITSPERSAMPLE, ())
    shift = 0 if has_32_bits and highest <= 255 else 8
    return Image.fromarray((values >> shift).astype(np.uint8))


def _jpeg_quality(image: Image.Image) -> int:
    tables = getattr(image, "quantization", None)
    if not tables:
        return 0
    total = int(np.sum(tables[min(tables)]))
    return int(np.abs(_QUALITY_SUMS - total).argmin()) + 1

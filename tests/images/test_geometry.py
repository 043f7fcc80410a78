"""Tests of the preprocessing from images to squares."""

import io
import subprocess
import sys
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from synthdetect.images.geometry import CENTRE, Preprocess
from synthdetect.images.options import GEOMETRIES
from synthdetect.images.reading import BadImage, equalise, read_image

Pixels = npt.NDArray[np.uint8]

RANDOM = ["random_crop", "resize_crop"]
NATIVE = ["center_crop", "random_crop"]


def encode(pixels: Pixels, kind: str = "PNG", **options: Any) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind, **options)
    return file.getvalue()


def noise(height: int, width: int) -> Pixels:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


def coordinates(height: int, width: int) -> Pixels:
    """Pixels whose red is the column and green the row, so that a crop shows its position."""
    y, x = np.mgrid[:height, :width]
    return np.stack([x, y, np.full_like(x, 200)], axis=2).astype(np.uint8)


def resized(pixels: Pixels, width: int, height: int) -> Pixels:
    image = Image.fromarray(pixels).resize((width, height), Image.Resampling.BILINEAR)
    return np.asarray(image)


@pytest.mark.parametrize("name", GEOMETRIES)
def test_which_geometries_are_random_in_training(name: str) -> None:
    assert Preprocess(32, name).random == (name in RANDOM)


@pytest.mark.parametrize("name", GEOMETRIES)
@pytest.mark.parametrize(
    ("height", "width"),
    [(1, 1), (1, 500), (500, 1), (31, 77), (32, 32), (33, 32), (37, 36), (48, 200), (301, 7)],
)
def test_images_of_any_size_become_a_square(name: str, height: int, width: int) -> None:
    data = encode(np.full((height, width, 3), 255, np.uint8))
    for place in (CENTRE, (0.0, 0.0), (0.999999, 0.999999), (1.0, 1.0)):
        square = Preprocess(32, name)(data, place)
        assert square.shape == (32, 32, 3)
        assert square.dtype == np.uint8
        assert square.min() == 255  # no pixels from outside the image, which would be black


@pytest.mark.parametrize("name", GEOMETRIES)
def test_the_default_crop_is_the_centre(name: str) -> None:
    data = encode(noise(80, 100), "JPEG")
    make = Preprocess(32, name)
    np.testing.assert_array_equal(make(data), make(data))
    np.testing.assert_array_equal(make(data), make(data, (0.5, 0.5)))


@pytest.mark.parametrize("name", NATIVE)
def test_a_native_crop_has_the_exact_pixels_of_the_centre(name: str) -> None:
    pixels = noise(80, 100)
    np.testing.assert_array_equal(Preprocess(32, name)(encode(pixels)), pixels[24:56, 34:66])


@pytest.mark.parametrize(
    ("place", "left", "top"),
    [
        ((0.0, 0.0), 0, 0),
        ((1.0, 0.0), 68, 0),
        ((0.0, 1.0), 0, 48),
        ((1.0, 1.0), 68, 48),
        ((0.25, 0.75), 17, 36),
    ],
)
def test_a_position_is_a_share_of_the_free_space(
    place: tuple[float, float], left: int, top: int
) -> None:
    pixels = coordinates(80, 100)
    square = Preprocess(32, "random_crop")(encode(pixels), place)
    np.testing.assert_array_equal(square, pixels[top : top + 32, left : left + 32])


@pytest.mark.parametrize("name", RANDOM)
def test_random_crops_depend_on_the_position(name: str) -> None:
    data = encode(coordinates(80, 100))
    make = Preprocess(32, name)
    places = np.random.default_rng(0).random((20, 2))
    assert len({make(data, (x, y)).tobytes() for x, y in places.tolist()}) > 10


@pytest.mark.parametrize("name", NATIVE)
def test_a_native_crop_of_a_large_jpeg_has_full_resolution(name: str) -> None:
    data = encode(noise(300, 400), "JPEG", quality=95)
    whole = np.asarray(Image.open(io.BytesIO(data)))
    np.testing.assert_array_equal(Preprocess(32, name)(data), whole[134:166, 184:216])


@pytest.mark.parametrize("name", NATIVE)
@pytest.mark.parametrize(("height", "width"), [(16, 16), (16, 40), (40, 7), (1, 40), (1, 1)])
def test_an_image_smaller_than_the_crop_is_mirrored_and_not_enlarged(
    name: str, height: int, width: int
) -> None:
    pixels = noise(height, width)
    square = Preprocess(32, name)(encode(pixels)).astype(int)
    shown = pixels[max(0, (height - 32) // 2) :][:32, max(0, (width - 32) // 2) :][:, :32]
    rows, columns = shown.shape[:2]
    top, left = (32 - rows) // 2, (32 - columns) // 2
    np.testing.assert_array_equal(square[top : top + rows, left : left + columns], shown)
    if columns == 16:  # the pixels beside the image, from the inside to the outside
        np.testing.assert_array_equal(square[top : top + rows, 7::-1], shown[:, 1:9])
        np.testing.assert_array_equal(square[top : top + rows, 24:], shown[:, 14:6:-1])


@pytest.mark.parametrize("name", ["resize", *NATIVE])
def test_an_image_of_the_size_is_unchanged(name: str) -> None:
    pixels = noise(32, 32)
    make = Preprocess(32, name)
    for place in (CENTRE, (0.0, 1.0)):
        np.testing.assert_array_equal(make(encode(pixels), place), pixels)


def test_resize_keeps_the_whole_image() -> None:
    pixels = noise(80, 100)
    make = Preprocess(32, "resize")
    for place in (CENTRE, (0.0, 0.0)):
        np.testing.assert_array_equal(make(encode(pixels), place), resized(pixels, 32, 32))


@pytest.mark.parametrize(
    ("place", "left", "top"), [(CENTRE, 32, 16), ((0.0, 0.0), 0, 0), ((1.0, 1.0), 64, 32)]
)
def test_resize_crop_resizes_the_short_side_to_8_7_and_crops(
    place: tuple[float, float], left: int, top: int
) -> None:
    pixels = noise(128, 144)  # a crop of 224 from 256x288
    square = Preprocess(224, "resize_crop")(encode(pixels), place)
    expected = resized(pixels, 288, 256)[top : top + 224, left : left + 224]
    np.testing.assert_allclose(square.astype(int), expected, atol=1)


@pytest.mark.parametrize("quality", [0, 75])
@pytest.mark.parametrize("name", GEOMETRIES)
def test_the_square_of_a_large_image_does_not_depend_on_the_format(name: str, quality: int) -> None:
    """A format that can be decoded faster at a reduced scale, as JPEG can, must not be."""
    photograph = Image.fromarray(noise(75, 100)).resize((800, 600), Image.Resampling.BICUBIC)
    jpeg = encode(np.asarray(photograph), "JPEG", quality=90)
    pixels = np.asarray(Image.open(io.BytesIO(jpeg)))
    make = Preprocess(32, name, quality)
    square = make(jpeg)
    for kind, options in (("PNG", {}), ("TIFF", {}), ("WEBP", {"lossless": True})):
        np.testing.assert_array_equal(make(encode(pixels, kind, **options)), square)
    np.testing.assert_array_equal(make.square(read_image(jpeg)), square)  # as perturbed images are


@pytest.mark.parametrize("name", GEOMETRIES)
def test_the_position_is_that_in_the_upright_image(name: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    upright = noise(80, 100)
    turned = encode(np.ascontiguousarray(upright[:, ::-1].transpose(1, 0, 2)), exif=exif)
    make = Preprocess(32, name)
    np.testing.assert_array_equal(make(turned, (0.1, 0.9)), make(encode(upright), (0.1, 0.9)))


@pytest.mark.parametrize("name", GEOMETRIES)
def test_bytes_that_are_no_image_are_an_error(name: str) -> None:
    with pytest.raises(BadImage, match="not an image"):
        Preprocess(32, name)(b"nonsense")


@pytest.mark.skipif(sys.platform != "linux", reason="limits the process's memory")
@pytest.mark.parametrize("name", GEOMETRIES)
def test_a_narrow_image_does_not_take_gigabytes(name: str) -> None:
    """A PNG of a few hundred bytes. Enlarged as a whole it would have 224 x 13,440,000 pixels."""
    program = f"""
import io, re, resource
from PIL import Image
from synthdetect.images.geometry import Preprocess
file = io.BytesIO()
Image.new("RGB", (1, 60000), (9, 9, 9)).save(file, "PNG")
used = int(re.search(r"VmSize:\\s+(\\d+) kB", open("/proc/self/status").read())[1]) << 10
resource.setrlimit(resource.RLIMIT_AS, (used + (256 << 20), resource.RLIM_INFINITY))
square = Preprocess(224, {name!r})(file.getvalue())
assert square.shape == (224, 224, 3) and square.min() == square.max() == 9
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


# --- equalise


@pytest.mark.parametrize("name", GEOMETRIES)
def test_equalising_is_deterministic_and_depends_on_the_quality(name: str) -> None:
    data = encode(noise(90, 120))
    make = Preprocess(32, name, 75)
    np.testing.assert_array_equal(make(data), make(data))
    assert (make(data) != Preprocess(32, name)(data)).any()
    assert (make(data) != Preprocess(32, name, 60)(data)).any()


def test_equalising_shrinks_and_encodes_with_the_given_quality() -> None:
    image = Image.fromarray(noise(10, 5)).resize((100, 200)).convert("L").convert("RGB")
    coarse, fine = equalise(image, 20), equalise(image, 95)
    assert coarse.size == fine.size == (85, 170)
    shrunk = np.asarray(image.resize((85, 170), Image.Resampling.BILINEAR), dtype=float)
    errors = [np.abs(np.asarray(made) - shrunk).mean() for made in (coarse, fine)]
    assert errors[0] > 2 * errors[1] > 0


def test_one_pixel_can_be_equalised_but_not_more_than_a_jpeg_can_hold() -> None:
    assert Preprocess(16, "resize", 75)(encode(noise(1, 1))).shape == (16, 16, 3)
    with pytest.raises(BadImage):
        Preprocess(16, "resize", 75)(encode(noise(1, 80_000)))

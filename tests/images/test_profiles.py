"""Colours are converted to sRGB by the embedded profile, which may be anything."""

import io
import time
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image, ImageCms

from synthdetect.images.profiles import MAX_PROFILE_BYTES
from synthdetect.images.reading import read_image
from tests.images.profiles import (
    ADOBE_RGB,
    DISPLAY_P3,
    PROPHOTO,
    SRGB,
    SRGB_CURVE,
    chained_profile,
    cmyk_profile,
    grey_profile,
    power,
    rgb_profile,
)

Pixels = npt.NDArray[np.uint8]

P3 = rgb_profile(DISPLAY_P3)
COLOURS = np.random.default_rng(0).integers(20, 236, (12, 12, 3), dtype=np.uint8)


def encode(image: Image.Image, kind: str, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def pixels_of(image: Image.Image, kind: str = "PNG", **options: Any) -> Pixels:
    return np.asarray(read_image(encode(image, kind, **options)))


def linear(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """sRGB's levels (IEC 61966-2-1), 0 to 1, to linear light."""
    return np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)


def levels(light: npt.NDArray[Any]) -> npt.NDArray[Any]:
    light = np.clip(light, 0, 1)
    return np.where(light <= 0.0031308, light * 12.92, 1.055 * light ** (1 / 2.4) - 0.055)


WIDE = {
    "Display P3": (DISPLAY_P3, SRGB_CURVE, levels),
    "Adobe RGB": (ADOBE_RGB, power(563 / 256), lambda light: light ** (256 / 563)),
    "ProPhoto": (PROPHOTO, power(1.8), lambda light: light ** (1 / 1.8)),
}


class TestWideGamut:
    @pytest.mark.parametrize("name", WIDE)
    @pytest.mark.parametrize(
        ("kind", "options", "apart"),
        [
            ("PNG", {}, 0),
            ("TIFF", {}, 0),
            ("WEBP", {"lossless": True}, 0),
            ("JPEG", {"quality": 100, "subsampling": 0}, 16),
        ],
    )
    def test_colours_are_those_of_srgb(
        self, name: str, kind: str, options: dict[str, Any], apart: int
    ) -> None:
        colorants, curve, stored = WIDE[name]
        to_wide = np.linalg.inv(np.array(colorants).T) @ np.array(SRGB).T
        light = np.clip(linear(COLOURS / 255) @ to_wide.T, 0, 1)
        wide = np.rint(255 * stored(light)).astype(np.uint8)
        assert np.abs(wide.astype(int) - COLOURS).mean() > 4
        found = pixels_of(
            Image.fromarray(wide), kind, icc_profile=rgb_profile(colorants, curve), **options
        )
        # One level of a wide space can be several levels of sRGB in the dark.
        assert np.abs(found.astype(int) - COLOURS).mean() < 1 + apart / 8
        assert np.abs(found.astype(int) - COLOURS).max() <= 6 + apart

    def test_a_colour_that_srgb_does_not_have_becomes_the_nearest(self) -> None:
        red = Image.new("RGB", (4, 4), (255, 0, 0))
        assert (pixels_of(red, icc_profile=P3) == (255, 0, 0)).all()

    def test_transparent_pixels_are_white_and_palettes_are_converted(self) -> None:
        image = Image.new("RGBA", (2, 1), (234, 51, 35, 255))  # sRGB's red in Display P3
        image.putpixel((0, 0), (9, 200, 9, 0))
        white, red = pixels_of(image, icc_profile=P3)[0].tolist()
        assert white == [255, 255, 255]
        np.testing.assert_allclose(red, (255, 0, 0), atol=3)
        palette = image.convert("RGB").quantize(2)
        np.testing.assert_allclose(pixels_of(palette, icc_profile=P3)[0, 1], (255, 0, 0), atol=3)

    @pytest.mark.parametrize("kind", ["WEBP", "PNG", "TIFF"])
    def test_the_profile_is_not_applied_again_when_the_image_is_encoded_again(
        self, kind: str
    ) -> None:
        exif = Image.Exif()
        exif[0x0112] = 6
        image = Image.fromarray(COLOURS[:8])
        once = read_image(encode(image, "PNG", icc_profile=P3, exif=exif))
        assert once.info == {}
        options = {"lossless": True} if kind == "WEBP" else {}
        np.testing.assert_array_equal(pixels_of(once, kind, **options), np.asarray(once))


class TestSrgb:
    @pytest.mark.parametrize(
        "srgb",
        [rgb_profile(SRGB), ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()],
    )
    def test_an_srgb_profile_changes_no_pixel(self, srgb: bytes) -> None:
        image = Image.fromarray(COLOURS)
        np.testing.assert_array_equal(pixels_of(image, icc_profile=srgb), COLOURS)
        grey = image.convert("L")
        curve = grey_profile(SRGB_CURVE)
        np.testing.assert_array_equal(pixels_of(grey, icc_profile=curve), pixels_of(grey))


class TestOtherColours:
    def test_grey_is_converted_by_its_curve(self) -> None:
        grey = Image.fromarray(np.array([[0, 64, 128, 255]], np.uint8))
        expected = 255 * levels((np.array([0, 64, 128, 255]) / 255) ** 1.8)
        profile = grey_profile(power(1.8))
        for image in (grey, grey.convert("LA")):
            found = pixels_of(image, icc_profile=profile)
            np.testing.assert_allclose(found[0, :, 1], expected, atol=1)
            assert (found == found[..., :1]).all()
        wide = Image.fromarray(np.asarray(grey).astype(np.uint16) * 257)
        np.testing.assert_allclose(pixels_of(wide, icc_profile=profile)[0, :, 1], expected, atol=1)

    def test_cmyk_is_converted_by_its_profile(self) -> None:
        """With a profile in which full cyan is printed in grey and any other ink in black."""
        corners = np.tile(np.array([0, 128, 128]), (16, 1))
        corners[0], corners[8] = (255, 128, 128), (128, 128, 128)
        image = Image.new("CMYK", (16, 16))
        image.paste((255, 0, 0, 0), (8, 0, 16, 16))
        options: dict[str, Any] = {"quality": 100}
        found = pixels_of(image, "JPEG", icc_profile=cmyk_profile(corners), **options)
        np.testing.assert_allclose(found[8, 2], (255, 255, 255), atol=3)
        np.testing.assert_allclose(found[8, 13], (119, 119, 119), atol=4)
        plain = pixels_of(image, "JPEG", **options)
        np.testing.assert_allclose(plain[8, 13], (0, 255, 255), atol=4)


UNUSABLE = {
    "empty": b"",
    "no profile": b"nonsense" * 50,
    "its header only": P3[:128],
    "its first half": P3[: len(P3) // 2],
    "of grey": grey_profile(power(1.8)),
    "of inks": cmyk_profile(np.full((16, 3), 128)),
    "a link of devices": P3.replace(b"mntr", b"link"),
    "named colours": P3.replace(b"mntr", b"nmcl"),
    "too large": P3 + bytes(MAX_PROFILE_BYTES),
    "a long chain": chained_profile(5000),
}


class TestUntrusted:
    @pytest.mark.parametrize("name", UNUSABLE)
    def test_an_unusable_profile_is_ignored(self, name: str) -> None:
        image = Image.fromarray(COLOURS)
        began = time.perf_counter()
        # Not in a PNG, where Pillow limits a profile to 1 MiB.
        found = pixels_of(image, "TIFF", icc_profile=UNUSABLE[name])
        assert time.perf_counter() - began < 1
        np.testing.assert_array_equal(found, COLOURS)

    @pytest.mark.filterwarnings("ignore:Metadata Warning")
    @pytest.mark.parametrize("value", ["text", (1, 2, 3)])
    def test_what_stands_in_the_place_of_a_profile_may_have_any_type(self, value: Any) -> None:
        file = io.BytesIO()
        Image.fromarray(COLOURS).save(file, "TIFF", tiffinfo={34675: value})
        np.testing.assert_array_equal(np.asarray(read_image(file.getvalue())), COLOURS)

    @pytest.mark.parametrize(
        ("mode", "profile"),
        [
            ("RGB", P3),
            ("L", grey_profile(power(1.8))),
            ("CMYK", cmyk_profile(np.random.default_rng(0).integers(0, 256, (16, 3)))),
        ],
    )
    def test_random_damage_leaves_the_image_readable(self, mode: str, profile: bytes) -> None:
        image = Image.fromarray(COLOURS).convert(mode)
        rng = np.random.default_rng(1)
        for _ in range(100):
            damaged = np.frombuffer(profile, np.uint8).copy()
            places = rng.integers(0, min(len(damaged), 400), rng.integers(1, 8))
            damaged[places] = rng.integers(0, 256, len(places))
            found = pixels_of(image, "TIFF", icc_profile=damaged.tobytes())
            assert found.shape == COLOURS.shape

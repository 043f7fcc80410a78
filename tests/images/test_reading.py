"""Tests of decoding untrusted files to upright RGB or `BadImage`."""

import hashlib
import io
import struct
import time
import warnings
import zlib
from concurrent.futures import ThreadPoolExecutor
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image, features

from synthdetect.images.reading import MAX_PIXELS, BadImage, open_image, probe_image
from synthdetect.images.reading import read_image as read

Pixels = npt.NDArray[np.uint8]

SAMPLE = Path(str(files("synthdetect"))) / "sample"
ORIENTATION = 0x0112
RED, BLUE, WHITE = (255, 0, 0), (0, 0, 255), (255, 255, 255)


def encode(image: Image.Image, kind: str, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def noise(height: int, width: int, seed: int = 0) -> Pixels:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def blocks(height: int, width: int) -> Pixels:
    """Uniform blocks of 16 by 16 pixels, which JPEG preserves almost exactly."""
    return noise(height // 16, width // 16).repeat(16, 0).repeat(16, 1)


def smooth(width: int, height: int) -> Image.Image:
    return Image.fromarray(noise(4, 4)).resize((width, height), Image.Resampling.BICUBIC)


def colours(image: Image.Image) -> list[Any]:
    return [tuple(pixel) for pixel in np.asarray(image).reshape(-1, 3).tolist()]


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width: int, height: int, content: bytes, *, bits: int = 8, colour: int = 0) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0)
    parts = (chunk(b"IHDR", header), chunk(b"IDAT", zlib.compress(content)), chunk(b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


# Stored pixels of an upright image, by orientation, as defined by the EXIF standard.
STORED = {
    1: lambda upright: upright,
    2: lambda upright: upright[:, ::-1],
    3: lambda upright: upright[::-1, ::-1],
    4: lambda upright: upright[::-1],
    5: lambda upright: upright.transpose(1, 0, 2),
    6: lambda upright: upright[:, ::-1].transpose(1, 0, 2),
    7: lambda upright: upright[::-1, ::-1].transpose(1, 0, 2),
    8: lambda upright: upright[::-1].transpose(1, 0, 2),
}


def oriented(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    return exif


class TestOrientation:
    @pytest.mark.parametrize("orientation", range(1, 9))
    @pytest.mark.parametrize(
        ("kind", "options"), [("PNG", {}), ("TIFF", {}), ("WEBP", {"lossless": True})]
    )
    def test_a_rotated_image_is_read_upright(
        self, orientation: int, kind: str, options: dict[str, Any]
    ) -> None:
        upright = noise(6, 10)
        stored = Image.fromarray(np.ascontiguousarray(STORED[orientation](upright)))
        data = encode(stored, kind, exif=oriented(orientation), **options)
        np.testing.assert_array_equal(np.asarray(read(data)), upright)

    @pytest.mark.parametrize("orientation", range(1, 9))
    def test_a_rotated_jpeg_is_read_upright(self, orientation: int) -> None:
        upright = blocks(64, 128)
        stored = Image.fromarray(np.ascontiguousarray(STORED[orientation](upright)))
        data = encode(stored, "JPEG", quality=100, subsampling=0, exif=oriented(orientation))
        pixels = np.asarray(read(data)).astype(int)
        assert pixels.shape == (64, 128, 3)
        assert np.abs(pixels - upright).max() <= 4

    @pytest.mark.parametrize("orientation", [0, 9, 65535])
    def test_an_undefined_orientation_is_ignored(self, orientation: int) -> None:
        pixels = noise(6, 10)
        data = encode(Image.fromarray(pixels), "PNG", exif=oriented(orientation))
        np.testing.assert_array_equal(np.asarray(read(data)), pixels)

    @pytest.mark.parametrize(
        "exif",
        [
            b"Exif\0\0",
            b"Exif\0\0garbage that is no TIFF header",
            b"Exif\0\0II*\0\x08\0\0\0\xff\xff" + b"\x12\x01\x03\0\xff\xff\xff\xff\0\0\0\0" * 2,
            b"Exif\0\0MM\0*\xff\xff\xff\xff",
        ],
    )
    @pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
    @pytest.mark.filterwarnings("ignore")
    def test_an_image_with_damaged_exif_is_readable(self, exif: bytes, kind: str) -> None:
        data = encode(Image.new("RGB", (10, 6), WHITE), kind, exif=exif)
        image = read(data)
        assert image.size == (10, 6)
        assert set(colours(image)) == {WHITE}
        assert probe_image(data)["width"] == 10


class TestColours:
    def test_rgb_is_kept_exactly(self) -> None:
        pixels = noise(7, 5)
        image = read(encode(Image.fromarray(pixels), "PNG"))
        assert image.mode == "RGB"
        np.testing.assert_array_equal(np.asarray(image), pixels)

    def test_cmyk_jpeg_has_the_colours_of_the_ink(self) -> None:
        ink = Image.new("CMYK", (16, 16), (0, 255, 255, 0))
        image = read(encode(ink, "JPEG", quality=95))
        assert image.mode == "RGB"
        np.testing.assert_allclose(np.asarray(image)[8, 8], RED, atol=3)

    def test_grey_has_three_equal_channels(self) -> None:
        grey = Image.fromarray(np.array([[0, 100, 255]], dtype=np.uint8))
        assert colours(read(encode(grey, "PNG"))) == [(0, 0, 0), (100, 100, 100), WHITE]

    def test_one_bit_is_black_and_white(self) -> None:
        bits = Image.new("1", (2, 1))
        bits.putpixel((1, 0), 1)
        assert colours(read(encode(bits, "PNG"))) == [(0, 0, 0), WHITE]

    def test_palette_without_transparency_gives_its_colours(self) -> None:
        image = Image.new("P", (2, 1))
        image.putpalette([*RED, *BLUE])
        image.putpixel((1, 0), 1)
        assert colours(read(encode(image, "PNG"))) == [RED, BLUE]

    @pytest.mark.parametrize("transparency", [0, bytes([0, 255])])
    def test_a_transparent_palette_entry_is_white(self, transparency: int | bytes) -> None:
        image = Image.new("P", (2, 1))
        image.putpalette([*RED, *BLUE])
        image.putpixel((1, 0), 1)
        assert colours(read(encode(image, "PNG", transparency=transparency))) == [WHITE, BLUE]

    @pytest.mark.parametrize(
        ("mode", "key", "other", "seen"), [("RGB", RED, BLUE, BLUE), ("L", 10, 99, (99, 99, 99))]
    )
    def test_a_transparent_colour_is_white(
        self, mode: str, key: Any, other: Any, seen: Any
    ) -> None:
        image = Image.new(mode, (2, 1), key)
        image.putpixel((1, 0), other)
        assert colours(read(encode(image, "PNG", transparency=key))) == [WHITE, seen]

    @pytest.mark.parametrize(
        ("alpha", "seen"), [(0, WHITE), (128, (255, 127, 127)), (255, (255, 0, 0))]
    )
    def test_rgba_is_composited_on_white(self, alpha: int, seen: tuple[int, int, int]) -> None:
        image = Image.new("RGBA", (1, 1), (*RED, alpha))
        assert colours(read(encode(image, "PNG"))) == [seen]

    @pytest.mark.parametrize(("alpha", "seen"), [(0, 255), (128, 127), (255, 0)])
    def test_grey_with_alpha_is_composited_on_white(self, alpha: int, seen: int) -> None:
        image = Image.new("LA", (1, 1), (0, alpha))
        assert colours(read(encode(image, "PNG"))) == [(seen, seen, seen)]

    @pytest.mark.parametrize(
        ("mode", "kind", "opened_as"),
        [("I;16", "PNG", "I;16"), ("I", "PPM", "I"), ("I;16", "TIFF", "I;16"), ("I", "TIFF", "I")],
    )
    def test_sixteen_bit_grey_is_scaled_to_eight(
        self, mode: str, kind: str, opened_as: str
    ) -> None:
        values = [0, 255, 256, 32768, 65535]
        image = Image.new(mode, (5, 1))
        for x, value in enumerate(values):
            image.putpixel((x, 0), value)
        data = encode(image, kind)
        assert open_image(data).mode == opened_as
        assert [pixel[0] for pixel in colours(read(data))] == [0, 0, 1, 128, 255]

    def test_eight_bits_in_a_tiff_of_32_are_kept_as_they_are(self) -> None:
        values = np.array([[0, 1, 128, 255]], np.int32)
        data = encode(Image.fromarray(values), "TIFF")
        assert open_image(data).mode == "I"
        assert [pixel[0] for pixel in colours(read(data))] == [0, 1, 128, 255]

    @pytest.mark.parametrize("kind", ["PPM", "TIFF", "PNG"])
    def test_a_dark_image_of_16_bits_stays_dark(self, kind: str) -> None:
        data = encode(Image.fromarray(np.array([[0, 100, 255]], np.uint16)), kind)
        assert [pixel[0] for pixel in colours(read(data))] == [0, 0, 0]

    @pytest.mark.parametrize("value", [-1, 65536, 2**31 - 1])
    def test_integers_without_a_defined_white_are_an_error(self, value: int) -> None:
        data = encode(Image.fromarray(np.array([[0, value]], np.int32)), "TIFF")
        with pytest.raises(BadImage, match="no defined white level; store 8 or 16 bits"):
            read(data)

    def test_floating_point_pixels_are_an_error(self) -> None:
        data = encode(Image.new("F", (4, 4), 0.5), "TIFF")
        with pytest.raises(BadImage, match="floating-point"):
            read(data)

    @pytest.mark.parametrize(("kind", "options"), [("GIF", {}), ("WEBP", {"lossless": True})])
    def test_an_animation_gives_its_first_frame(self, kind: str, options: dict[str, Any]) -> None:
        frames = [Image.new("RGB", (4, 4), colour) for colour in (RED, BLUE)]
        data = encode(frames[0], kind, save_all=True, append_images=frames[1:], **options)
        assert open_image(data).n_frames == 2  # type: ignore[attr-defined]
        assert set(colours(read(data))) == {RED}

    def test_a_multi_picture_jpeg_gives_its_first_picture(self) -> None:
        frames = [Image.new("RGB", (64, 32), colour) for colour in (RED, BLUE)]
        data = encode(frames[0], "MPO", save_all=True, append_images=frames[1:], quality=95)
        image = read(data)
        assert image.size == (64, 32)
        np.testing.assert_allclose(np.asarray(image)[4, 4], RED, atol=3)

    @pytest.mark.parametrize(
        ("kind", "options"),
        [
            ("JPEG2000", {}),
            pytest.param(
                "AVIF",
                {"quality": 100},
                marks=pytest.mark.skipif(not features.check("avif"), reason="no AVIF codec"),
            ),
        ],
    )
    def test_newer_formats_are_read(self, kind: str, options: dict[str, Any]) -> None:
        pixels = blocks(32, 48)
        image = read(encode(Image.fromarray(pixels), kind, **options))
        assert (image.mode, image.size) == ("RGB", (48, 32))
        assert np.abs(np.asarray(image)[8::16, 8::16].astype(int) - pixels[8::16, 8::16]).max() <= 6


class TestRefusal:
    @pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "BMP"])
    def test_a_truncated_file_is_an_error(self, kind: str) -> None:
        data = encode(Image.fromarray(noise(64, 64)), kind)
        assert read(data).size == (64, 64)
        with pytest.raises(BadImage):
            read(data[: len(data) // 2])

    @pytest.mark.parametrize(
        ("data", "reason"),
        [
            (b"", "the file is empty"),
            (b"\0", "not an image of a known format"),
            (b"\0" * 5000, "not an image of a known format"),
            (b"Not found", "not an image of a known format"),
            (b"<!doctype html><title>404</title>", "not an image of a known format"),
            (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "not an image of a known format"),
            (b"\xff\xd8\xff", "not an image of a known format"),
        ],
    )
    def test_content_that_is_no_image_is_an_error_with_a_reason(
        self, data: bytes, reason: str
    ) -> None:
        with pytest.raises(BadImage) as caught:
            read(data)
        assert str(caught.value) == reason

    @pytest.mark.parametrize("kind", ["EPS", "PDF", "TGA", "PCX", "SGI", "ICO", "ICNS"])
    def test_other_formats_are_not_decoded(self, kind: str) -> None:
        data = encode(Image.new("RGB", (64, 64), RED), kind)
        with pytest.raises(BadImage, match="not an image of a known format"):
            read(data)

    def test_a_text_chunk_that_decompresses_to_too_much_is_an_error(self) -> None:
        whole = png(1, 1, b"\0\0")
        text = chunk(b"zTXt", b"Comment\0\0" + zlib.compress(bytes(1 << 21)))
        with pytest.raises(BadImage, match="too large"):
            read(whole[:33] + text + whole[33:])

    def test_a_header_with_too_many_pixels_is_an_error(self) -> None:
        with pytest.raises(BadImage, match="60000x60000 pixels are more than the limit of"):
            read(png(60_000, 60_000, b"\0" * 100))

    def test_a_small_file_with_too_many_pixels_is_an_error(self) -> None:
        width, height = 10_008, 10_000
        data = png(width, height, (b"\0" * (1 + width // 8)) * height, bits=1)
        assert len(data) < 20_000
        assert width * height > MAX_PIXELS
        for function in (read, open_image, probe_image):
            with pytest.raises(BadImage, match="10008x10000 pixels are more than the limit"):
                function(data)

    def test_a_gif_frame_larger_than_its_screen_is_an_error(self) -> None:
        data = bytearray(encode(Image.new("P", (4, 4)), "GIF"))
        frame = data.index(b",", 13 + 3 * 2 ** ((data[10] & 7) + 1))
        assert data[frame + 5 : frame + 9] == struct.pack("<HH", 4, 4)
        data[frame + 5 : frame + 9] = struct.pack("<HH", 60_000, 60_000)
        with pytest.raises(BadImage, match="60000x60000"):
            read(bytes(data))

    def test_the_limit_itself_is_allowed(self) -> None:
        assert MAX_PIXELS == 10_000 * 10_000
        assert open_image(png(10_000, 10_000, b"", bits=1)).size == (10_000, 10_000)

    @pytest.mark.filterwarnings("ignore")
    @pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "TIFF"])
    def test_random_damage_raises_only_bad_image(self, kind: str) -> None:
        with Image.open(SAMPLE / "train" / "real" / "p000_0.jpg") as image:
            whole = encode(image.crop((80, 80, 128, 128)), kind)
        rng = np.random.default_rng(7)
        refused = 0
        for _ in range(200):
            data = np.frombuffer(whole, np.uint8).copy()
            places = rng.integers(0, len(data), rng.integers(1, 12))
            data[places] = rng.integers(0, 256, len(places))
            if rng.random() < 0.3:
                data = data[: rng.integers(0, len(data))]
            try:
                assert read(data.tobytes()).mode == "RGB"
            except BadImage as error:
                refused += 1
                self.check_message(error)
        assert refused > 20

    @staticmethod
    def check_message(error: BadImage) -> None:
        text = str(error)
        assert 0 < len(text) < 150
        assert "BytesIO" not in text
        assert " at 0x" not in text
        assert "\n" not in text
        assert "/" not in text.replace("encoder/decoder", "")

    def test_reading_in_threads_keeps_the_warning_filters_of_the_process(self) -> None:
        quick, slow = (encode(Image.fromarray(noise(side, side)), "PNG") for side in (300, 600))
        before = list(warnings.filters)
        try:
            with ThreadPoolExecutor(2) as pool:
                for _ in range(5):  # the second starts during the first and ends after it
                    first = pool.submit(read, quick)
                    time.sleep(0.001)
                    second = pool.submit(read, slow)
                    assert first.result().size < second.result().size
            after = list(warnings.filters)
        finally:
            warnings.filters[:] = before  # type: ignore[index]
        assert after == before


class TestProbe:
    def test_a_png_is_described_completely(self) -> None:
        data = encode(Image.new("RGBA", (5, 3)), "PNG")
        assert probe_image(data) == {
            "sha256": hashlib.sha256(data).hexdigest(),
            "width": 5,
            "height": 3,
            "format": "PNG",
            "mode": "RGBA",
            "jpeg_quality": 0,
            "exif": False,
        }

    @pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF", "PPM"])
    def test_the_format_is_that_of_the_content(self, kind: str) -> None:
        assert probe_image(encode(Image.new("RGB", (4, 4)), kind))["format"] == kind

    @pytest.mark.parametrize(
        ("mode", "kind"), [("RGB", "JPEG"), ("L", "JPEG"), ("CMYK", "JPEG"), ("P", "GIF")]
    )
    def test_the_mode_is_that_of_the_file(self, mode: str, kind: str) -> None:
        assert probe_image(encode(Image.new(mode, (4, 4)), kind))["mode"] == mode

    def test_width_and_height_are_as_stored(self) -> None:
        data = encode(Image.new("RGB", (10, 6)), "JPEG", exif=oriented(6))
        found = probe_image(data)
        assert (found["width"], found["height"]) == (10, 6)
        assert read(data).size == (6, 10)

    @pytest.mark.parametrize("mode", ["RGB", "L"])
    def test_the_jpeg_quality_is_estimated(self, mode: str) -> None:
        image = Image.new(mode, (8, 8))
        found = {
            q: probe_image(encode(image, "JPEG", quality=q))["jpeg_quality"] for q in range(50, 101)
        }
        assert {q: f for q, f in found.items() if abs(f - q) > 1} == {}
        assert (found[50], found[75], found[90], found[100]) == (50, 75, 90, 100)

    @pytest.mark.parametrize("quality", [1, 5, 10, 20, 30, 40])
    def test_low_jpeg_qualities_are_estimated_within_1(self, quality: int) -> None:
        data = encode(Image.new("RGB", (8, 8)), "JPEG", quality=quality)
        assert probe_image(data)["jpeg_quality"] == pytest.approx(quality, abs=1)

    @pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
    def test_exif_is_detected(self, kind: str) -> None:
        image = Image.new("RGB", (4, 4))
        assert probe_image(encode(image, kind, exif=oriented(1)))["exif"] is True
        assert probe_image(encode(image, kind))["exif"] is False

    def test_an_image_is_decoded_completely(self) -> None:
        data = encode(Image.fromarray(noise(64, 64)), "JPEG")
        assert open_image(data[: len(data) // 2]).size == (64, 64)
        with pytest.raises(BadImage, match="truncated"):
            probe_image(data[: len(data) // 2])

    def test_the_versions_of_a_sample_crop_have_equal_headers(self) -> None:
        for crop in ("p000_0", "p133_2"):
            versions = sorted(SAMPLE.glob(f"train/*/{crop}.jpg"))
            assert len(versions) == 2
            found = [probe_image(file.read_bytes()) for file in versions]
            assert found[0].pop("sha256") != found[1].pop("sha256")
            assert found[0] == found[1]
            quality = found[0].pop("jpeg_quality")
            assert 80 <= quality <= 98
            assert found[0] == {
                "width": 224,
                "height": 224,
                "format": "JPEG",
                "mode": "RGB",
                "exif": False,
            }

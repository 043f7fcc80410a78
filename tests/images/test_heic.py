"""HEIC images, by pillow-heif."""

import io

import numpy as np
import pytest
from PIL import Image

from synthdetect.images import reading
from synthdetect.images.provenance import provenance
from synthdetect.images.reading import BadImage, is_heic, probe_image, read_image


def heic(image: Image.Image, **options: object) -> bytes:
    import pillow_heif

    file = io.BytesIO()
    pillow_heif.from_pillow(image).save(file, quality=95, **options)
    return file.getvalue()


@pytest.fixture(scope="module")
def gradient() -> Image.Image:
    ramp = np.linspace(0, 255, 64, dtype=np.uint8)
    return Image.fromarray(np.stack([np.tile(ramp, (48, 1))] * 3, axis=2))


def test_heic_is_decoded_and_described(gradient: Image.Image) -> None:
    data = heic(gradient)
    assert is_heic(data)
    difference = np.asarray(read_image(data), int) - np.asarray(gradient, int)
    assert np.abs(difference).mean() < 3
    assert {k: probe_image(data)[k] for k in ("width", "height", "format", "mode")} == {
        "width": 64, "height": 48, "format": "HEIF", "mode": "RGB",
    }  # fmt: skip


def test_its_metadata_are_read(gradient: Image.Image) -> None:
    exif = Image.Exif()
    exif[0x010F], exif[0x0110] = "Apple", "iPhone 15"
    found = provenance(heic(gradient, exif=exif.tobytes()))
    assert (found.camera, found.says) == ("Apple iPhone 15", "captured")


def test_without_the_package_the_extra_is_named(
    gradient: Image.Image, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = heic(gradient)
    reading._heic_formats.cache_clear()
    monkeypatch.setattr(reading, "find_spec", lambda name: None)
    with pytest.raises(BadImage, match=r'pip install "synthdetect\[heic\]"'):
        read_image(data)


def test_damaged_heic_and_other_formats(gradient: Image.Image) -> None:
    data = heic(gradient)
    for length in range(12, len(data), max(1, len(data) // 20)):
        with pytest.raises(BadImage):
            read_image(data[:length])
    file = io.BytesIO()
    gradient.save(file, "AVIF")
    assert not is_heic(file.getvalue())
    assert read_image(file.getvalue()).size == gradient.size

"""Synthetic images are aligned with their photographs in pixels, frequencies and JPEG quality."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, JpegImagePlugin

from synthdetect.images.batches import Batches, ImageFiles, Order
from synthdetect.images.geometry import Preprocess
from synthdetect.images.options import PairOptions
from synthdetect.images.pairs import Pairs, Square, aligned_hashes, encoded_alike, high_pass

SIZE = 32
NONE = np.array([-1])
_RNG = np.random.default_rng(0)
FAKE = _RNG.integers(60, 190, (SIZE, SIZE, 3), dtype=np.uint8)
PHOTOGRAPH = _RNG.integers(60, 190, (SIZE, SIZE, 3), dtype=np.uint8)


def pairs(photographs: Any = NONE, *, seed: int = 1, **options: Any) -> Pairs:
    return Pairs(PairOptions(**options), np.asarray(photographs), seed)


def mixed(by: Pairs, row: int = 0, epoch: int = 1) -> Square:
    return by.mixed(FAKE, lambda: PHOTOGRAPH, epoch=epoch, row=row)


def encoded(pixels: Square, format: str = "JPEG", mode: str = "RGB", **options: Any) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(file, format, **options)
    return file.getvalue()


def test_pixels_are_blended_by_a_share_up_to_the_largest() -> None:
    by = pairs(pair_mix_pixels=1.0, pair_mix_most=0.5)
    difference = PHOTOGRAPH.astype(float) - FAKE
    shares = []
    for row in range(100):
        change = mixed(by, row) - FAKE.astype(float)
        share = (change * difference).sum() / (difference**2).sum()
        np.testing.assert_allclose(change, share * difference, atol=1)
        shares.append(share)
    assert 0 <= min(shares) < 0.05
    assert 0.45 < max(shares) <= 0.5


def test_frequencies_below_the_cutoff_stay_those_of_the_synthetic_image() -> None:
    by = pairs(pair_mix_frequency=1.0)
    means = []
    for row in range(40):
        change = mixed(by, row) - FAKE.astype(float)
        assert abs(change.mean()) < 0.2, "a cutoff above 0 keeps the mean"
        means.append(np.abs(change).mean())
    assert max(means) > 10 * (min(means) + 0.1)


def test_a_high_pass_keeps_what_lies_above_its_cutoff_and_takes_away_the_rest() -> None:
    noise = _RNG.normal(size=(SIZE, SIZE, 3)).astype(np.float32)
    np.testing.assert_allclose(high_pass(noise, 0), noise, atol=1e-5)
    high = high_pass(noise, 0.5)
    np.testing.assert_allclose(high_pass(high, 0.5), high, atol=1e-5)
    assert np.abs(high_pass(noise - high, 0.5)).max() < 1e-5
    # A quarter of the disc of radius 0.5 is taken away from the square of frequencies.
    assert high.var() / noise.var() == pytest.approx(1 - np.pi / 16, abs=0.05)


@pytest.mark.parametrize("option", ["pair_mix_pixels", "pair_mix_frequency"])
def test_the_probability_is_that_of_the_option(option: str) -> None:
    by = pairs(**{option: 0.3}, pair_mix_most=0.99)
    share = np.mean([mixed(by, row) is not FAKE for row in range(300)])
    assert share == pytest.approx(0.3, abs=0.08)


def test_the_photograph_is_not_read_unless_it_is_needed() -> None:
    def never() -> Square:
        raise AssertionError

    assert pairs(align_quality=True).mixed(FAKE, never, epoch=1, row=0) is FAKE


def test_a_mix_depends_on_seed_epoch_and_row_only() -> None:
    options = {"pair_mix_pixels": 1.0, "pair_mix_frequency": 1.0}
    first = mixed(pairs(**options), 3, 2).tobytes()
    assert first == mixed(pairs(**options), 3, 2).tobytes()
    others = [mixed(pairs(**options), 4, 2), mixed(pairs(**options), 3, 3)]
    others.append(mixed(pairs(seed=2, **options), 3, 2))
    assert first not in [other.tobytes() for other in others]


@pytest.mark.parametrize("subsampling", [0, 1, 2])
@pytest.mark.parametrize("quality", [40, 75, 93])
def test_an_image_is_encoded_as_its_photograph_is(quality: int, subsampling: int) -> None:
    photograph = encoded(PHOTOGRAPH, quality=quality, subsampling=subsampling)
    wanted = encoded(FAKE, quality=quality, subsampling=subsampling)
    aligned = encoded_alike(encoded(FAKE, "PNG"), photograph)
    np.testing.assert_array_equal(aligned, Image.open(io.BytesIO(wanted)))


def test_tables_that_belong_to_no_quality_are_taken_too() -> None:
    tables = [[5 + i % 7 for i in range(64)], [9 + i % 5 for i in range(64)]]
    photograph = encoded(PHOTOGRAPH, qtables=tables, subsampling=1)
    wanted = encoded(FAKE, qtables=tables, subsampling=1)
    aligned = encoded_alike(encoded(FAKE, "PNG"), photograph)
    np.testing.assert_array_equal(aligned, Image.open(io.BytesIO(wanted)))


@pytest.mark.parametrize("mode", ["L", "CMYK"])
def test_a_photograph_with_other_channels_than_three_gives_its_only_table(mode: str) -> None:
    photograph = encoded(PHOTOGRAPH, mode=mode, quality=60)
    opened = Image.open(io.BytesIO(photograph))
    assert isinstance(opened, JpegImagePlugin.JpegImageFile)
    wanted = encoded(FAKE, qtables=[opened.quantization[0]], subsampling=0)
    aligned = encoded_alike(encoded(FAKE, "PNG"), photograph)
    np.testing.assert_array_equal(aligned, Image.open(io.BytesIO(wanted)))


def test_nothing_is_encoded_for_a_subsampling_that_cannot_be_written(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    photograph, png = encoded(PHOTOGRAPH, quality=60), encoded(FAKE, "PNG")
    assert not np.array_equal(encoded_alike(png, photograph), FAKE)
    # As Pillow says of 4:4:0, which it reads and does not write.
    monkeypatch.setattr(JpegImagePlugin, "get_sampling", lambda image: -1)
    np.testing.assert_array_equal(encoded_alike(png, photograph), FAKE)


def test_nothing_is_encoded_for_a_photograph_that_is_no_jpeg_or_is_encoded_alike() -> None:
    png = encoded(FAKE, "PNG")
    np.testing.assert_array_equal(encoded_alike(png, encoded(PHOTOGRAPH, "PNG")), FAKE)
    jpeg = encoded(FAKE, quality=70)
    aligned = encoded_alike(jpeg, encoded(PHOTOGRAPH, quality=70))
    np.testing.assert_array_equal(aligned, Image.open(io.BytesIO(jpeg)))


def test_the_content_of_a_pair_has_a_name_of_its_own() -> None:
    hashes = ["a" * 64, "b" * 64, "c" * 64]
    names = aligned_hashes(hashes, np.array([-1, 0, 0]))
    assert names[0] == hashes[0]
    assert len({*names, *hashes}) == 5
    assert {len(name) for name in names} == {64}
    assert aligned_hashes(hashes, np.array([-1, 0, -1]))[1:] == [names[1], hashes[2]]


@pytest.fixture
def images(tmp_path: Path) -> ImageFiles:
    """A photograph with two regenerations, and a synthetic image without a photograph."""
    for number in range(4):
        pixels = np.random.default_rng(number).integers(0, 256, (40, 50, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{number}.png")
    files = [tmp_path / f"{number}.png" for number in range(4)]
    return ImageFiles(files, Preprocess(SIZE, "random_crop"), targets=[0, 1, 1, 1], seed=5)


def test_a_mix_has_the_same_place_of_both_images_and_stays_synthetic(images: ImageFiles) -> None:
    keys = [(2, row) for row in range(8)]
    before = [images[key] for key in keys]
    images.pairs = pairs([-1, 0, 0, -1], pair_mix_pixels=1.0)
    for key, unmixed in zip(keys, before, strict=True):
        item, row = images[key], key[1] % 4
        assert item.target == unmixed.target == (row > 0)
        assert not isinstance(item.pixels, str)
        assert not isinstance(unmixed.pixels, str)
        if row in (0, 3):
            np.testing.assert_array_equal(item.pixels, unmixed.pixels)
            continue
        photograph = images.preprocess(images.read(0), images._place(*key))
        difference = photograph.astype(float) - unmixed.pixels
        change = item.pixels - unmixed.pixels.astype(float)
        share = (change * difference).sum() / (difference**2).sum()
        assert 0 < share < 0.8
        np.testing.assert_allclose(change, share * difference, atol=0.6)


def test_the_number_of_workers_changes_nothing(images: ImageFiles) -> None:
    images.pairs = pairs([-1, 0, 0, -1], pair_mix_pixels=0.5, pair_mix_frequency=0.5)
    alone = list(Batches(images, Order(4, 2, seed=1), 0).epoch(3))
    shared = list(Batches(images, Order(4, 2, seed=1), 2).epoch(3))
    for one, other in zip(alone, shared, strict=True):
        assert one.rows.equal(other.rows)
        assert one.images.equal(other.images)
        assert one.targets.equal(other.targets)

"""Tests of the random resampling and re-encoding of training images."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from synthdetect.images.batches import ImageFiles
from synthdetect.images.geometry import Preprocess
from synthdetect.images.laundering import Laundering, Square
from synthdetect.images.options import LaunderingOptions

SIZE = 64


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SYNTHDETECT_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def noise() -> Square:
    return np.random.default_rng(0).integers(0, 256, (SIZE, SIZE, 3), dtype=np.uint8)


def laundering(*, crop: int = 0, seed: int = 1, **options: Any) -> Laundering:
    return Laundering(LaunderingOptions(**options), crop, seed)


def share_of_changed(change: Laundering, square: Square, *, target: float, rows: int = 60) -> float:
    changed = [change(square, target=target, epoch=1, row=row) for row in range(rows)]
    return float(np.mean([not np.array_equal(square, one) for one in changed]))


def detail(square: Square) -> float:
    """Mean difference of neighbouring pixels."""
    return float(np.abs(np.diff(square.astype(float), axis=1)).mean())


def test_without_options_there_is_nothing_to_do(noise: Square) -> None:
    assert not laundering().active
    assert laundering()(noise, target=0, epoch=1, row=0) is noise


@pytest.mark.parametrize(
    "option", ["resample_real", "resample_synthetic", "rescale", "degrade", "recompress"]
)
def test_each_option_makes_laundering_active(option: str) -> None:
    assert laundering(**{option: 0.1}).active


@pytest.mark.parametrize(("option", "target"), [("resample_real", 0), ("resample_synthetic", 1)])
def test_only_images_of_the_class_are_resampled_as_such(
    option: str, target: float, noise: Square
) -> None:
    change = laundering(**{option: 1.0})
    assert share_of_changed(change, noise, target=target) == 1
    assert share_of_changed(change, noise, target=1 - target) == 0
    assert share_of_changed(change, noise, target=math.nan) == 0


def test_synthetic_images_are_resampled_as_real_ones_are(noise: Square) -> None:
    change = laundering(resample_real=1.0, resample_synthetic=1.0)
    for row in range(5):
        real = change(noise, target=0, epoch=1, row=row)
        np.testing.assert_array_equal(real, change(noise, target=1, epoch=1, row=row))


def test_rescaling_changes_the_scale_as_far_as_the_crop_leaves_room() -> None:
    """The steps of a ramp become longer or shorter."""
    ramp = np.tile(np.arange(SIZE, dtype=np.uint8)[None, :, None] * 2, (SIZE, 1, 3))

    def scales(crop: int) -> list[float]:
        change = laundering(crop=crop, rescale=1.0)
        made = [change(ramp, target=0, epoch=1, row=row) for row in range(60)]
        assert {square.shape for square in made} == {(crop or SIZE, crop or SIZE, 3)}
        slopes = [np.diff(square[0, 4:-4, 0].astype(float)).mean() for square in made]
        return [2 / slope for slope in slopes]

    whole, cropped = scales(0), scales(SIZE // 2)
    assert 0.95 < min(whole) < 1.2
    assert 0.45 < min(cropped) < 0.7
    assert all(1.5 < max(found) < 2.2 for found in (whole, cropped))


@pytest.mark.parametrize("option", ["rescale", "degrade", "recompress"])
def test_both_classes_are_changed_alike(option: str, noise: Square) -> None:
    change = laundering(**{option: 1.0})
    for row in range(5):
        real = change(noise, target=0, epoch=2, row=row)
        assert not np.array_equal(real, noise)
        np.testing.assert_array_equal(real, change(noise, target=1, epoch=2, row=row))


@pytest.mark.parametrize("option", ["resample_real", "rescale", "degrade", "recompress"])
def test_the_probability_is_that_of_the_option(option: str, noise: Square) -> None:
    share = share_of_changed(laundering(**{option: 0.3}), noise, target=0, rows=200)
    assert share == pytest.approx(0.3, abs=0.1)


def test_resampling_takes_detail_away_and_keeps_shape_and_mean(noise: Square) -> None:
    for row in range(20):
        changed = laundering(resample_real=1.0)(noise, target=0, epoch=1, row=row)
        assert changed.shape == noise.shape
        assert changed.dtype == np.uint8
        assert changed.mean() == pytest.approx(noise.mean(), abs=4)
        assert detail(changed) < 0.9 * detail(noise)


def test_a_lower_quality_loses_more(noise: Square) -> None:
    def loss(quality: int) -> float:
        change = laundering(recompress=1.0, recompress_quality=quality)
        made = [change(noise, target=1, epoch=1, row=row) for row in range(30)]
        return float(np.mean([np.abs(one - noise.astype(float)).mean() for one in made]))

    assert loss(10) > 1.5 * loss(95)


def test_the_blocks_of_jpeg_lie_at_random_places() -> None:
    gradient = np.tile(np.arange(SIZE, dtype=np.uint8)[None, :, None] * 3, (SIZE, 1, 3))
    change = laundering(recompress=1.0, recompress_quality=5)
    phases = set()
    for row in range(40):
        jumps = np.abs(np.diff(change(gradient, target=0, epoch=1, row=row)[0, :, 0].astype(int)))
        phases.add(int(np.argmax([jumps[phase::8].mean() for phase in range(8)])))
    assert len(phases) >= 5


def test_crops_are_parts_of_the_square_at_random_places(noise: Square) -> None:
    change = laundering(crop=16)
    assert change.active
    crops = [change(noise, target=0, epoch=1, row=row) for row in range(10)]
    windows = np.lib.stride_tricks.sliding_window_view(noise, (16, 16, 3))[:, :, 0]
    for crop in crops:
        assert crop.shape == (16, 16, 3)
        assert (windows == crop).all(axis=(2, 3, 4)).any()
    assert len({crop.tobytes() for crop in crops}) > 5


def test_changes_depend_on_seed_epoch_and_row_only(noise: Square) -> None:
    options = {"resample_real": 0.5, "degrade": 0.5, "recompress": 0.5}
    change = laundering(crop=32, **options)

    def made(of: Laundering, epoch: int, row: int) -> bytes:
        return of(noise, target=0, epoch=epoch, row=row).tobytes()

    assert made(change, 3, 4) == made(laundering(crop=32, **options), 3, 4)
    others = [
        made(change, 3, 5),
        made(change, 4, 4),
        made(laundering(crop=32, seed=2, **options), 3, 4),
    ]
    assert made(change, 3, 4) not in others


def test_a_dataset_launders_what_its_cache_keeps_unchanged(tmp_path: Path, noise: Square) -> None:
    file = tmp_path / "a.png"
    Image.fromarray(noise).save(file)
    images = ImageFiles([file], Preprocess(SIZE, "center_crop"), targets=[0])
    np.testing.assert_array_equal(images[1, 0].pixels, noise)
    images.laundering = laundering(resample_real=1.0)
    first, second = images[1, 0].pixels, images[2, 0].pixels
    assert not np.array_equal(first, noise)
    assert not np.array_equal(first, second)
    unknown = ImageFiles([file], Preprocess(SIZE, "center_crop"))
    unknown.laundering = images.laundering
    np.testing.assert_array_equal(unknown[1, 0].pixels, noise)

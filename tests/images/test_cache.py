"""Tests of the cache of squares: it returns exactly what was stored, or nothing."""

import copy as copy_module
import os
from pathlib import Path

import numpy as np
import pytest

from synthdetect.images import cache as cache_module
from synthdetect.images.cache import DecodedCache
from synthdetect.images.geometry import Preprocess

HASHES = [f"{number:064x}" for number in range(8)]
SQUARE = Preprocess(16, "resize")
BYTES = 16 * 16 * 3


def pixels(number: int) -> np.ndarray:
    return np.random.default_rng(number).integers(0, 256, (16, 16, 3), dtype=np.uint8)


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SYNTHDETECT_CACHE", str(tmp_path))
    return tmp_path / "decoded"


def test_squares_are_found_by_hash_in_any_order() -> None:
    cache = DecodedCache(HASHES[::-1], SQUARE, 10**6)
    slots = cache.slots(HASHES)
    assert cache.get(slots[3]) is None
    for number, slot in enumerate(slots):
        cache.put(slot, pixels(number))
    reopened = DecodedCache(HASHES, SQUARE, 10**6)
    for number, slot in enumerate(reopened.slots(HASHES)):
        np.testing.assert_array_equal(reopened.get(slot), pixels(number))


@pytest.mark.parametrize(
    "other",
    [
        lambda: DecodedCache(HASHES[:-1], SQUARE, 10**6),
        lambda: DecodedCache(HASHES, Preprocess(16, "center_crop"), 10**6),
    ],
)
def test_other_content_or_preprocessing_is_another_cache(other: object) -> None:
    cache = DecodedCache(HASHES, SQUARE, 10**6)
    cache.put(0, pixels(0))
    assert other().get(0) is None  # type: ignore[operator]


def test_squares_of_another_version_of_the_preprocessing_are_not_used(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    DecodedCache(HASHES, SQUARE, 10**6).put(0, pixels(0))
    assert DecodedCache(HASHES, SQUARE, 10**6).get(0) is not None
    monkeypatch.setattr(cache_module, "SQUARE_VERSION", 1)
    assert DecodedCache(HASHES, SQUARE, 10**6).get(0) is None


def test_random_crops_are_not_cached(folder: Path) -> None:
    cache = DecodedCache(HASHES, Preprocess(16, "random_crop"), 10**6)
    assert (cache.slots(HASHES) == -1).all()
    cache.put(-1, pixels(0))
    assert cache.get(-1) is None
    assert not folder.exists()


def test_the_limit_holds_for_one_cache_and_for_all(folder: Path) -> None:
    first = DecodedCache(HASHES, SQUARE, 5 * BYTES)
    slots = first.slots(HASHES)
    assert (slots >= 0).sum() == 5
    for slot in slots:
        first.put(slot, pixels(1))
    (old,) = folder.iterdir()
    os.utime(old, (1, 1))
    DecodedCache(HASHES[:4], SQUARE, 5 * BYTES)
    assert not old.exists()


def test_a_limit_of_0_switches_the_cache_off(folder: Path) -> None:
    cache = DecodedCache(HASHES, SQUARE, 0)
    assert (cache.slots(HASHES) == -1).all()
    assert not folder.exists()


@pytest.mark.parametrize("kept", [0, 1, BYTES // 2, BYTES - 1])
def test_an_incomplete_square_is_not_returned(folder: Path, kept: int) -> None:
    """A full disk or a power cut may leave one, even if the next slot is complete."""
    cache = DecodedCache(HASHES, SQUARE, 10**6)
    cache.put(0, pixels(1))
    (file,) = folder.glob("*/pixels")
    os.truncate(file, kept)
    assert cache.get(0) is None
    cache.put(1, pixels(2))
    assert cache.get(0) is None
    np.testing.assert_array_equal(cache.get(1), pixels(2))
    cache.put(0, pixels(1))
    np.testing.assert_array_equal(cache.get(0), pixels(1))


def test_a_folder_that_cannot_be_written_is_no_error(folder: Path) -> None:
    folder.write_text("a file is in the way")
    cache = DecodedCache(HASHES, SQUARE, 10**6)
    cache.put(0, pixels(0))
    assert cache.get(0) is None


def test_it_can_be_passed_to_a_worker_process() -> None:
    cache = DecodedCache(HASHES, SQUARE, 10**6)
    cache.put(2, pixels(2))
    copy = copy_module.copy(cache)  # by the protocol that is used between processes
    np.testing.assert_array_equal(copy.get(2), pixels(2))


def test_views_of_an_image_are_cached_separately_by_name() -> None:
    views = ["none", "blur"]
    cache = DecodedCache(HASHES, SQUARE, 10**6, views)
    slots = [cache.slots(HASHES, view) for view in range(2)]
    assert sorted(np.concatenate(slots)) == list(range(16))
    for number in range(8):
        cache.put(slots[1][number], pixels(number))
    reopened = DecodedCache(HASHES, SQUARE, 10**6, views)
    for number in range(8):
        assert reopened.get(slots[0][number]) is None
        np.testing.assert_array_equal(reopened.get(slots[1][number]), pixels(number))
    assert DecodedCache(HASHES, SQUARE, 10**6, ["none", "crop"]).get(slots[1][0]) is None


def test_the_limit_counts_all_views_of_an_image() -> None:
    cache = DecodedCache(HASHES, SQUARE, 7 * BYTES, ["a", "b"])
    assert [(cache.slots(HASHES, view) >= 0).sum() for view in range(2)] == [3, 3]


def test_views_are_cached_for_random_geometries_too() -> None:
    cache = DecodedCache(HASHES, Preprocess(16, "random_crop"), 10**6, ["centre"])
    assert (cache.slots(HASHES) >= 0).all()

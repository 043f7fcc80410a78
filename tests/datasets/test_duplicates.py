"""Duplicates: all pairs within the distance are found, and no others."""

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from synthdetect.datasets import duplicates
from synthdetect.datasets.duplicates import (
    COARSE_DISTANCE,
    FINE_DISTANCE,
    exact_pairs,
    near_pairs,
    perceptual_hashes,
)
from synthdetect.datasets.index import index
from synthdetect.datasets.manifest import Manifest
from synthdetect.datasets.perceptual import Hashes
from synthdetect.system.errors import UserError


def random_hashes(rows: int, seed: int = 0) -> Hashes:
    rng = np.random.default_rng(seed)
    return rng.integers(0, 2**64, (rows, 5), dtype=np.uint64)


def flipped(row: Hashes, coarse: int, fine: int, seed: int) -> Hashes:
    """Flip random bits of the hashes of a row."""
    bits = np.unpackbits(row.view(np.uint8))
    rng = np.random.default_rng(seed)
    bits[rng.choice(64, coarse, replace=False)] ^= 1
    bits[64 + rng.choice(256, fine, replace=False)] ^= 1
    return np.packbits(bits).view(np.uint64)


def pairs(hashes: Hashes, groups: list[int] | None = None) -> list[tuple[int, int, int]]:
    found = near_pairs(hashes, np.array(groups or range(len(hashes)), dtype=np.int64))
    return list(zip(*(column.tolist() for column in found), strict=True))


@pytest.mark.parametrize("seed", range(20))
def test_a_pair_within_the_distance_is_found_once(seed: int) -> None:
    hashes = random_hashes(50, seed)
    hashes[40] = flipped(hashes[7], COARSE_DISTANCE, FINE_DISTANCE, seed)
    hashes[41] = flipped(hashes[8], COARSE_DISTANCE + 1, 0, seed)
    hashes[42] = flipped(hashes[9], 0, FINE_DISTANCE + 1, seed)
    assert pairs(hashes) == [(7, 40, FINE_DISTANCE)]


def test_the_pairs_are_those_of_an_exhaustive_comparison() -> None:
    base = random_hashes(30)
    rng = np.random.default_rng(1)
    hashes = np.stack(
        [
            flipped(base[i % 30], int(rng.integers(0, 6)), int(rng.integers(0, 40)), i)
            for i in range(120)
        ]
    )
    bits = np.unpackbits(hashes.view(np.uint8), axis=1).astype(int)
    distance = (bits[:, None] != bits[None]).astype(int)
    near = (distance[..., :64].sum(2) <= COARSE_DISTANCE) & (
        distance[..., 64:].sum(2) <= FINE_DISTANCE
    )
    expected = [(i, j) for i, j in np.argwhere(near).tolist() if i < j]
    assert len(expected) > 20
    assert [pair[:2] for pair in pairs(hashes)] == expected


def test_rows_of_one_group_are_not_paired() -> None:
    hashes = np.repeat(random_hashes(2), 2, axis=0)
    assert pairs(hashes, [0, 0, 1, 2]) == [(2, 3, 0)]


def test_different_hashes_give_no_pairs() -> None:
    assert pairs(random_hashes(500)) == []
    assert pairs(random_hashes(1)) == []


def test_the_search_stops_after_max_pairs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(duplicates, "MAX_PAIRS", 70)
    assert len(pairs(np.repeat(random_hashes(1), 50, axis=0))) == 70


def test_each_repeated_content_is_paired_with_its_first_row() -> None:
    first, second = exact_pairs(pd.DataFrame({"sha256": ["a", "b", "a", "c", "b", "a"]}))
    assert list(zip(first.tolist(), second.tolist(), strict=True)) == [(0, 2), (1, 4), (0, 5)]


@pytest.fixture
def images(tmp_path: Path) -> Manifest:
    """Three different images, and a smaller copy of the first as JPEG."""
    for number in range(3):
        pixels = np.random.default_rng(number).integers(0, 256, (8, 8, 3), dtype=np.uint8)
        Image.fromarray(pixels).resize((96, 80)).save(tmp_path / f"{number}.png")
    Image.open(tmp_path / "0.png").resize((48, 40)).save(tmp_path / "3.jpg", quality=70)
    names = ["0.png", "1.png", "2.png", "3.jpg"]
    table = pd.DataFrame({"path": names, "label": 0, "split": "", "source_id": ""})
    return index(Manifest(table, tmp_path, "images"))


def all_hashes(images: Manifest) -> Hashes:
    rows, hashes = perceptual_hashes(images)
    assert rows.tolist() == list(range(len(images)))
    return hashes


def forget(tmp_path: Path) -> None:
    """Remove the hashes that the index has kept."""
    shutil.rmtree(tmp_path / "cache" / "perceptual")


def test_the_index_keeps_the_hashes_by_content(images: Manifest, tmp_path: Path) -> None:
    for path in images.table["path"]:
        (tmp_path / path).unlink()
    hashes = all_hashes(images)
    assert [pair[:2] for pair in pairs(hashes)] == [(0, 3)]
    backwards = images.with_table(images.table.iloc[::-1])
    np.testing.assert_array_equal(all_hashes(backwards), hashes[::-1])


def test_hashes_that_are_not_kept_are_the_same_when_computed_again(
    images: Manifest, tmp_path: Path
) -> None:
    hashes = all_hashes(images)
    forget(tmp_path)
    np.testing.assert_array_equal(all_hashes(images), hashes)


def test_when_time_is_up_the_first_images_have_hashes_and_the_next_search_goes_on(
    images: Manifest, tmp_path: Path
) -> None:
    hashes = all_hashes(images)
    forget(tmp_path)
    for done in ([0], [0, 1], [0, 1, 2], [0, 1, 2, 3]):
        rows, found = perceptual_hashes(images, seconds=0)
        assert rows.tolist() == done
        np.testing.assert_array_equal(found, hashes[done])


def test_only_pairs_across_sides_are_found_if_sides_are_given() -> None:
    hashes = np.repeat(random_hashes(1), 4, axis=0)
    first, second, _ = near_pairs(hashes, np.arange(4), np.array([True, True, False, False]))
    assert list(zip(first, second, strict=True)) == [(0, 2), (0, 3), (1, 2), (1, 3)]


def test_a_file_that_was_deleted_is_named(images: Manifest, tmp_path: Path) -> None:
    forget(tmp_path)
    (tmp_path / "2.png").unlink()
    with pytest.raises(UserError, match=r"2\.png: "):
        perceptual_hashes(images)


def test_without_a_writable_cache_the_images_are_hashed_each_time(
    images: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hashes = all_hashes(images)
    closed = tmp_path / "closed"
    closed.write_text("a file, in which not even root can make a folder")
    monkeypatch.setenv("SYNTHDETECT_CACHE", str(closed))
    np.testing.assert_array_equal(all_hashes(images), hashes)


def test_with_a_damaged_cache_the_images_are_hashed_again(images: Manifest, tmp_path: Path) -> None:
    hashes = all_hashes(images)
    (store,) = (tmp_path / "cache" / "perceptual").iterdir()
    store.write_bytes(b"cut short")
    np.testing.assert_array_equal(all_hashes(images), hashes)

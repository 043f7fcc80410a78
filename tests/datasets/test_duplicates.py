"""Copies: every pair within the distance is found, and none that is not."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from synthdetect.datasets import duplicates
from synthdetect.datasets.duplicates import (
    COARSE_DISTANCE,
    FINE_DISTANCE,
    Hashes,
    exact_pairs,
    near_pairs,
    perceptual_hashes,
)
from synthdetect.datasets.index import index
from synthdetect.datasets.manifest import Manifest
from synthdetect.system.errors import UserError


def random_hashes(rows: int, seed: int = 0) -> Hashes:
    rng = np.random.default_rng(seed)
    return rng.integers(0, 2**64, (rows, 5), dtype=np.uint64)


def flipped(row: Hashes, coarse: int, fine: int, seed: int) -> Hashes:
    """The hashes with so many bits changed at random places."""
    bits = np.unpackbits(row.view(np.uint8))
    rng = np.random.default_rng(seed)
    bits[rng.choice(64, coarse, replace=False)] ^= 1
    bits[64 + rng.choice(256, fine, replace=False)] ^= 1
    return np.packbits(bits).view(np.uint64)


def pairs(hashes: Hashes, groups: list[int] | None = None) -> list[tuple[int, int, int]]:
    found = near_pairs(hashes, np.array(groups or range(len(hashes)), dtype=np.int64))
    return list(zip(*(column.tolist() for column in found), strict=True))


@pytest.mark.parametrize("seed", range(20))
def test_wherever_the_bits_differ_a_pair_within_the_distance_is_found_once(seed: int) -> None:
    hashes = random_hashes(50, seed)
    hashes[40] = flipped(hashes[7], COARSE_DISTANCE, FINE_DISTANCE, seed)
    hashes[41] = flipped(hashes[8], COARSE_DISTANCE + 1, 0, seed)
    hashes[42] = flipped(hashes[9], 0, FINE_DISTANCE + 1, seed)
    assert pairs(hashes) == [(7, 40, FINE_DISTANCE)]


def test_all_pairs_are_found_that_comparing_all_would_find() -> None:
    base = random_hashes(30)
    rng = np.random.default_rng(1)
    hashes = np.stack(
        [flipped(base[i % 30], rng.integers(0, 6), rng.integers(0, 40), i) for i in range(120)]
    )
    bits = np.unpackbits(hashes.view(np.uint8), axis=1).astype(int)
    distance = (bits[:, None] != bits[None]).astype(int)
    near = (distance[..., :64].sum(2) <= COARSE_DISTANCE) & (
        distance[..., 64:].sum(2) <= FINE_DISTANCE
    )
    expected = [(i, j) for i, j in np.argwhere(near).tolist() if i < j]
    assert len(expected) > 20
    assert [pair[:2] for pair in pairs(hashes)] == expected


def test_rows_of_one_group_are_no_pair() -> None:
    hashes = np.repeat(random_hashes(2), 2, axis=0)
    assert pairs(hashes, [0, 0, 1, 2]) == [(2, 3, 0)]


def test_nothing_alike_gives_no_pairs() -> None:
    assert pairs(random_hashes(500)) == []
    assert pairs(random_hashes(1)) == []


def test_the_search_stops_where_everything_is_a_copy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(duplicates, "MAX_PAIRS", 70)
    assert len(pairs(np.repeat(random_hashes(1), 50, axis=0))) == 70


def test_each_repeated_content_is_paired_with_its_first_row() -> None:
    first, second = exact_pairs(pd.DataFrame({"sha256": ["a", "b", "a", "c", "b", "a"]}))
    assert list(zip(first.tolist(), second.tolist(), strict=True)) == [(0, 2), (1, 4), (0, 5)]


@pytest.fixture
def pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Manifest:
    monkeypatch.setenv("SYNTHDETECT_CACHE", str(tmp_path / "cache"))
    for number in range(3):
        pixels = np.random.default_rng(number).integers(0, 256, (8, 8, 3), dtype=np.uint8)
        Image.fromarray(pixels).resize((96, 80)).save(tmp_path / f"{number}.png")
    Image.open(tmp_path / "0.png").resize((48, 40)).save(tmp_path / "3.jpg", quality=70)
    names = ["0.png", "1.png", "2.png", "3.jpg"]
    table = pd.DataFrame({"path": names, "label": 0, "split": "", "source_id": ""})
    return index(Manifest(table, tmp_path, "pictures"))


def test_pictures_are_hashed_once_and_remembered_by_content(
    pictures: Manifest, tmp_path: Path
) -> None:
    hashes = perceptual_hashes(pictures)
    assert [pair[:2] for pair in pairs(hashes)] == [(0, 3)]
    for path in pictures.table["path"]:
        (tmp_path / path).unlink()  # and yet they are known
    np.testing.assert_array_equal(perceptual_hashes(pictures), hashes)
    backwards = pictures.with_table(pictures.table.iloc[::-1])
    np.testing.assert_array_equal(perceptual_hashes(backwards), hashes[::-1])


def test_a_file_that_has_gone_is_an_error_with_its_name(pictures: Manifest, tmp_path: Path) -> None:
    (tmp_path / "2.png").unlink()
    with pytest.raises(UserError, match=r"2\.png: could be read before"):
        perceptual_hashes(pictures)


def test_without_a_place_for_the_memory_the_pictures_are_hashed_each_time(
    pictures: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hashes = perceptual_hashes(pictures)
    closed = tmp_path / "closed"
    closed.write_text("a file, in which nobody, not even root, makes a folder")
    monkeypatch.setenv("SYNTHDETECT_CACHE", str(closed))
    np.testing.assert_array_equal(perceptual_hashes(pictures), hashes)


def test_a_damaged_memory_only_costs_a_second_look(pictures: Manifest, tmp_path: Path) -> None:
    hashes = perceptual_hashes(pictures)
    (store,) = (tmp_path / "cache" / "perceptual").iterdir()
    store.write_bytes(b"cut short")
    np.testing.assert_array_equal(perceptual_hashes(pictures), hashes)

"""Duplicates: pairs of images that are identical files or look alike.

Two perceptual hashes of each image are compared. A coarse one of 64 bits finds candidates, and a
fine one of 256 bits confirms them. In two data sets of 1,066 and 3,402 images made from 150
and 214 photographs, images of different photographs differed in at least 10 of the 64 and 82 of the
256 bits, whereas 99 % of the outputs of upscalers differed from the originals in at most 6 and 34.
"""

import math
import os
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import combinations

import numpy as np
import numpy.typing as npt
import pandas as pd

from synthdetect.datasets.index import ProgressCallback
from synthdetect.datasets.manifest import Manifest
from synthdetect.datasets.perceptual import HashCache, Hashes, perceptual_hash
from synthdetect.images.contents import read_content
from synthdetect.images.reading import BadImage, read_image
from synthdetect.system.errors import UserError

COARSE_DISTANCE, FINE_DISTANCE = 6, 40
"""Largest number of differing bits, of 64 and of 256, between two images that look alike."""

MAX_PAIRS = 100_000
"""Number of pairs after which the search stops."""

Rows = npt.NDArray[np.int64]

_BANDS = 8  # of 8 bits each; COARSE_DISTANCE differing bits leave at least two of them alike


def exact_pairs(table: pd.DataFrame) -> tuple[Rows, Rows]:
    """Pair the first row of each `sha256` with every later row of the same.

    If a content occurs in several splits or with both labels, at least one pair shows it.

    Returns:
        First row and second row of each pair, shape (pairs,).
    """
    contents = pd.factorize(table["sha256"])[0]
    first = np.unique(contents, return_index=True)[1][contents]
    later = np.flatnonzero(first != np.arange(len(table)))
    return first[later], later


def perceptual_hashes(
    manifest: Manifest,
    progress: ProgressCallback | None = None,
    *,
    seconds: float = math.inf,
) -> tuple[Rows, Hashes]:
    """Return the perceptual hashes of an indexed manifest, reading only contents not yet hashed.

    Args:
        manifest: The images.
        progress: Called while images are read.
        seconds: Time after which no further image is read.

    Returns:
        The rows that have a hash, ascending, shape (rows,), and their hashes, shape (rows, 5): one
        word of coarse bits, then four words of fine bits. In the end these are all rows, unless
        time ran out; those that come first in the manifest are hashed first.

    Raises:
        UserError: If a file can no longer be read.
    """
    end = time.monotonic() + seconds
    cache = HashCache(manifest.root)
    contents = manifest.table["sha256"]
    new = manifest.table[~cache.has(contents)].drop_duplicates("sha256")
    files = [manifest.file(path) for path in new["path"]]
    found: dict[str, Hashes] = {}
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for content, words in zip(new["sha256"], pool.map(_hash, files), strict=True):
            found[content] = words
            if progress:
                progress(len(found), len(new))
            if time.monotonic() > end:
                pool.shutdown(cancel_futures=True)
                break
    cache.add(found)
    rows = np.flatnonzero(cache.has(contents))
    return rows, cache.get(contents.iloc[rows])


def near_pairs(
    hashes: Hashes, groups: Rows, sides: npt.NDArray[np.bool_] | None = None
) -> tuple[Rows, Rows, Rows]:
    """Find pairs of rows that look alike and belong to different groups.

    Hashes that differ in at most 6 bits differ in at most 6 of 8 bands of bits, so they agree in
    two. Only rows that agree in two bands are compared: about n**2 / 4700 pairs of n random hashes.

    Args:
        hashes: As returned by `perceptual_hashes`.
        groups: Group of each row, shape (images,). Rows of one group are expected to look alike.
        sides: If given, only pairs of a row where this is true and one where it is false.

    Returns:
        First row, second row and number of differing fine bits of each pair, shape (pairs,). The
        search stops after `MAX_PAIRS`.
    """
    found: dict[tuple[int, int], int] = {}
    for one, other in _candidates(hashes[:, 0]):
        a, b = np.minimum(one, other), np.maximum(one, other)
        if sides is not None:
            a, b = _where(sides[a] != sides[b], a, b)
        a, b = _where(groups[a] != groups[b], a, b)
        a, b = _where(_distance(hashes[a, :1], hashes[b, :1]) <= COARSE_DISTANCE, a, b)
        distance = _distance(hashes[a, 1:], hashes[b, 1:])
        a, b, distance = _where(distance <= FINE_DISTANCE, a, b, distance)
        pairs = zip(a.tolist(), b.tolist(), strict=True)
        found |= dict(zip(pairs, distance.tolist(), strict=True))
        if len(found) >= MAX_PAIRS:
            break
    rows = np.array(sorted((*pair, d) for pair, d in found.items())[:MAX_PAIRS], dtype=np.int64)
    first, second, distances = rows.reshape(-1, 3).T
    return first, second, distances


def _candidates(coarse: Hashes) -> Iterator[tuple[Rows, Rows]]:
    """Yield pairs of rows that agree in two bands of the coarse hash. A pair may be repeated."""
    bands = np.ascontiguousarray(coarse).view(np.uint8).reshape(-1, _BANDS).astype(np.uint16)
    for band, further in combinations(bands.T, 2):
        keys = band << 8 | further
        order = np.argsort(keys, kind="stable")
        keys = keys[order]
        left = np.arange(len(keys))
        for step in range(1, len(keys)):  # equal keys are adjacent: the first mismatch ends a run
            left = left[left + step < len(keys)]
            left = left[keys[left] == keys[left + step]]
            if not len(left):
                break
            yield order[left], order[left + step]


def _where(holds: npt.NDArray[np.bool_], *columns: Rows) -> list[Rows]:
    return [column[holds] for column in columns]


def _distance(a: Hashes, b: Hashes) -> Rows:
    """Count the differing bits of each pair of rows."""
    return np.asarray(np.bitwise_count(a ^ b).sum(axis=1), dtype=np.int64)


def _hash(file: str) -> Hashes:
    try:
        return perceptual_hash(read_image(read_content(file)))
    except (BadImage, OSError) as error:
        raise UserError(
            f"{file}: was readable when it was indexed and is not any more: {error}. Restore it."
        ) from error

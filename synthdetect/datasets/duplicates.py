"""Duplicates: pairs of images that are identical files or look alike.

Two perceptual hashes of each image are compared (Zauner 2010: signs of the lowest DCT coefficients
relative to their median, as in the ImageHash package). A coarse one of 64 bits finds candidates,
and a fine one of 256 bits confirms them. In two data sets of 1,066 and 3,402 images made from 150
and 214 photographs, images of different photographs differed in at least 10 of the 64 and 82 of the
256 bits, whereas 99 % of the outputs of upscalers differed from the originals in at most 6 and 34.
"""

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import imagehash
import numpy as np
import numpy.typing as npt
import pandas as pd
import PIL

from synthdetect.datasets.index import ProgressCallback
from synthdetect.datasets.manifest import Manifest
from synthdetect.images.reading import BadImage, read_image
from synthdetect.system.errors import UserError
from synthdetect.system.files import cache_folder, short_hash, write_to_cache

COARSE_DISTANCE, FINE_DISTANCE = 6, 40
"""Largest number of differing bits, of 64 and of 256, between two images that look alike."""

MAX_PAIRS = 100_000
"""Number of pairs after which the search stops."""

Rows = npt.NDArray[np.int64]
Hashes = npt.NDArray[np.uint64]

_VERSION = 1
_WORDS = ["coarse", "fine_1", "fine_2", "fine_3", "fine_4"]
_SIDE = 64  # pixels per side from which the fine hash is computed


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


def perceptual_hashes(manifest: Manifest, progress: ProgressCallback | None = None) -> Hashes:
    """Hash every image of an indexed manifest, reading only contents that are not cached.

    Returns:
        Shape (images, 5): one word of coarse bits, then four words of fine bits.

    Raises:
        UserError: If a file can no longer be read.
    """
    name = short_hash(f"{_VERSION} {PIL.__version__} {manifest.root}")
    cache = cache_folder() / "perceptual" / f"{name}.parquet"
    known = _read_cache(cache)
    table = manifest.table.drop_duplicates("sha256").set_index("sha256")["path"]
    new = table[~table.index.isin(known.index)]
    found = np.empty((len(new), len(_WORDS)), dtype=np.uint64)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        files = [manifest.file(path) for path in new]
        for row, words in enumerate(pool.map(_hash, files)):
            found[row] = words
            if progress:
                progress(row + 1, len(new))
    if len(new):
        known = pd.concat([known, pd.DataFrame(found, index=new.index, columns=_WORDS)])
        cached = known.rename_axis("sha256").reset_index()
        write_to_cache(cache, lambda file: cached.to_parquet(file, index=False))
    hashes: Hashes = known.loc[manifest.table["sha256"], _WORDS].to_numpy(dtype=np.uint64)
    return hashes


def near_pairs(hashes: Hashes, groups: Rows) -> tuple[Rows, Rows, Rows]:
    """Find pairs of rows that look alike and belong to different groups.

    By the pigeonhole principle, two hashes that differ in at most d bits agree in at least one of
    d + 1 bands of bits. Only rows that agree in a band are compared: for d = 6, about
    (d + 1) n**2 / 1024 pairs of n random hashes.

    Args:
        hashes: As returned by `perceptual_hashes`.
        groups: Group of each row, shape (images,). Rows of one group are expected to look alike.

    Returns:
        First row, second row and number of differing fine bits of each pair, shape (pairs,). The
        search stops after `MAX_PAIRS`.
    """
    found: dict[tuple[int, int], int] = {}
    for one, other in _candidates(hashes[:, 0]):
        a, b = np.minimum(one, other), np.maximum(one, other)
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
    """Yield pairs of rows that agree in a band of the coarse hash. A pair may be repeated."""
    for bits in np.array_split(np.arange(64, dtype=np.uint64), COARSE_DISTANCE + 1):
        keys = (coarse >> bits[0]) & np.uint64((1 << len(bits)) - 1)
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


def _hash(file: Path) -> Hashes:
    try:
        image = read_image(file.read_bytes(), at_least=_SIDE)
    except (BadImage, OSError) as error:
        raise UserError(
            f"{file}: was readable when it was indexed and is not any more: {error}. Restore it."
        ) from error
    bits = [imagehash.phash(image, hash_size=side).hash for side in (8, 16)]
    return np.concatenate([np.packbits(b).view(np.uint64) for b in bits])


def _read_cache(cache: Path) -> pd.DataFrame:
    try:
        return pd.read_parquet(cache).set_index("sha256")[_WORDS]
    except (OSError, ValueError, KeyError):  # absent or damaged: the images are read again
        return pd.DataFrame(columns=_WORDS, dtype=np.uint64)

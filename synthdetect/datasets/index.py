"""Index of image files: hash, size and format of each.

Every image is read before training, so that an unreadable one is found in time. This is slow for
many files. The index is therefore cached, and a file is read again only if its size or modification
time has changed.
"""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from synthdetect.datasets.manifest import Manifest
from synthdetect.datasets.perceptual import HashCache, perceptual_hash
from synthdetect.images.buckets import is_url
from synthdetect.images.contents import member_of, read_content, shard_stamps
from synthdetect.images.provenance import provenance
from synthdetect.images.reading import BadImage, describe_image, read_image
from synthdetect.system.errors import UserError
from synthdetect.system.files import cache_folder, short_hash, write_to_cache

PROBED = ("sha256", "width", "height", "format", "mode", "jpeg_quality", "exif")
_NUMBERS = ("bytes", "mtime_ns", "width", "height", "jpeg_quality")
COLUMNS = ("bytes", "mtime_ns", *PROBED, "provenance", "error")
"""Columns that indexing adds. `provenance` is what the metadata say about the origin, as
`Provenance.kind`; `error` is the reason why a file cannot be read, empty if it can."""

_UNREACHABLE = (-1, -1)
_UNKNOWN_SIZE = -2  # of a member of a shard, which is as old as its shard
_BUCKET_THREADS = 32  # which mostly wait
_HASH = "perceptual_hash"

ProgressCallback = Callable[[int, int], None]
"""Called with (number of files done, number of files in total)."""


def index(manifest: Manifest, *, progress: ProgressCallback | None = None) -> Manifest:
    """Add `COLUMNS` to a manifest, reading only files that are new or have changed.

    Known values come from the manifest itself (if `synthdetect manifest` wrote it) and from the
    cache folder. Files are read by one thread per core: decoders release the interpreter lock.
    The perceptual hashes of the decoded images are kept too, for the search for near-duplicates.

    Raises:
        UserError: If the `sha256` of a row differs from the content of its file.
    """
    cache = cache_folder() / "index" / f"{short_hash(str(manifest.root))}.parquet"
    paths = manifest.table["path"].tolist()
    known = _known(manifest, cache)
    files = manifest.files()
    current = _stats(files)
    # The last row stands for unknown files, for which get_indexer returns -1.
    indexed = np.vstack([known[["bytes", "mtime_ns"]].to_numpy(np.int64), [_UNREACHABLE]])
    before = indexed[known.index.get_indexer(paths)]
    same = ((before == current) | (current == _UNKNOWN_SIZE)).all(axis=1)
    stale = np.flatnonzero(~same | (current[:, 1] == -1))
    stale_paths = [paths[row] for row in stale]
    probed = []
    with ThreadPoolExecutor(_threads(files)) as pool:
        results = pool.map(_probe, [files[row] for row in stale], current[stale].tolist())
        for done, row in enumerate(results, 1):
            probed.append(row)
            if progress:
                progress(done, len(stale))
    if stale_paths:
        new = pd.DataFrame(probed, columns=list(COLUMNS), index=stale_paths)
        known = pd.concat([known.drop(stale_paths, errors="ignore"), new]) if len(known) else new
        cached = known.rename_axis("path").reset_index()
        write_to_cache(cache, lambda file: cached.to_parquet(file, index=False))
        hashes = {row["sha256"]: row[_HASH] for row in probed if _HASH in row}
        HashCache(manifest.root).add(hashes)
    found = known.iloc[known.index.get_indexer(paths)].reset_index(drop=True)
    _check_given_hashes(manifest, found)
    kept = manifest.table.drop(columns=[c for c in COLUMNS if c in manifest.table])
    return manifest.with_table(pd.concat([kept, found], axis=1))


def _stat(file: str) -> tuple[int, int]:
    try:
        stat = os.stat(file)
    except OSError:
        return _UNREACHABLE
    return (stat.st_size, stat.st_mtime_ns)


def _stats(files: list[str]) -> npt.NDArray[np.int64]:
    """Return the size in bytes and the time of each file, of shape (files, 2)."""
    stamps = {shard: -1 for shard in map(_shard, files)}
    stamps |= shard_stamps(shard for shard in stamps if shard)
    return np.array(
        [
            (_UNKNOWN_SIZE, stamps[shard]) if (shard := _shard(file)) else _stat(file)
            for file in files
        ],
        dtype=np.int64,
    )


def _shard(file: str) -> str:
    """Return the shard or the object in a bucket that an image is in, or "" for a file."""
    member = member_of(file)
    return member.shard if member else file if is_url(file) else ""


def _threads(files: list[str]) -> int:
    cores = os.cpu_count() or 1
    return max(_BUCKET_THREADS, cores) if any(map(is_url, files)) else cores


def _probe(file: str, stat: tuple[int, int]) -> dict[str, Any]:
    size, mtime = stat
    row: dict[str, Any] = dict.fromkeys(PROBED, "") | dict.fromkeys(("width", "height"), 0)
    row |= {"jpeg_quality": 0, "exif": False, "bytes": max(size, -1), "mtime_ns": mtime}
    row |= {"provenance": "", "error": ""}
    try:
        data = read_content(file)
        row["bytes"] = len(data)
        image = read_image(data)
        row |= describe_image(data) | {"provenance": provenance(data).kind}
        row |= {_HASH: perceptual_hash(image)}
    except BadImage as error:
        row["error"] = str(error)
    except OSError as error:  # perhaps temporary: cached in a state that no file has
        row |= {"error": error.strerror or str(error), "bytes": -1, "mtime_ns": -1}
    return row


def _known(manifest: Manifest, cache: Path) -> pd.DataFrame:
    """Return the known `COLUMNS` by path. The manifest takes precedence over the cache."""
    tables = []
    for table in (manifest.table, _read_cache(cache)):
        if table is not None and set(COLUMNS) - {"error"} <= set(table.columns):
            rows = table.reindex(columns=["path", *COLUMNS])
            for name in _NUMBERS:
                numbers = pd.to_numeric(rows[name], errors="coerce")
                rows[name] = numbers.where(numbers.abs() < 2**63)  # excludes inf
            rows["exif"] = rows["exif"].astype(str).str.lower() == "true"
            for name in ("provenance", "error"):
                rows[name] = rows[name].astype("str").fillna("")
            rows = rows.dropna(subset=list(_NUMBERS)).astype(dict.fromkeys(_NUMBERS, "int64"))
            tables.append(rows.set_index("path"))
    if not tables:
        return pd.DataFrame(columns=list(COLUMNS))
    known = pd.concat(tables)
    return known[~known.index.duplicated()]


def _read_cache(cache: Path) -> pd.DataFrame | None:
    try:
        return pd.read_parquet(cache)
    except (OSError, ValueError):  # absent, or truncated by a full disk: the files are read again
        return None


def _check_given_hashes(manifest: Manifest, found: pd.DataFrame) -> None:
    if "sha256" not in manifest.table:
        return
    given = manifest.table["sha256"].fillna("").astype(str)
    differs = (given != "") & (found["error"] == "") & (given != found["sha256"])
    if differs.any():
        path = manifest.table["path"][differs.to_numpy()].iloc[0]
        raise UserError(
            f"{manifest.name}: {int(differs.sum())} file(s) differ from the sha256 in the "
            f"manifest, first {path!r}. Restore them, or write the manifest again (synthdetect "
            "manifest)."
        )

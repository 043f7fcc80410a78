"""What each file holds (hash, size, format), found once and remembered.

Reading every image before training is how an unreadable one is found in time. It is also slow for
many files, so what was found is kept, and a file is read again only when its size or modification
time has changed.
"""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from synthdetect.datasets.manifest import Manifest
from synthdetect.images.reading import BadImage, probe_image, read_file
from synthdetect.system.errors import UserError
from synthdetect.system.files import cache_folder, short_hash, write_to_cache

PROBED = ("sha256", "width", "height", "format", "mode", "jpeg_quality", "exif")
_NUMBERS = ("bytes", "mtime_ns", "width", "height", "jpeg_quality")
COLUMNS = ("bytes", "mtime_ns", *PROBED, "error")
"""Columns that indexing adds; `error` is why a file cannot be read, empty where it can."""

_UNREACHABLE = (-1, -1)

ProgressCallback = Callable[[int, int], None]
"""Called with (files done, files to do)."""


def index(manifest: Manifest, *, progress: ProgressCallback | None = None) -> Manifest:
    """Add `COLUMNS` to a manifest, reading only files that are new or have changed.

    What is known comes from the manifest itself (if `synthdetect manifest` wrote it) and from the
    cache folder. Files are read by one thread a core; decoders release the interpreter's lock.

    Raises:
        UserError: a row's `sha256` differs from its file's content.
    """
    store = cache_folder() / "index" / f"{short_hash(str(manifest.root))}.parquet"
    paths = manifest.table["path"].tolist()
    known = _known(manifest, store)
    files = manifest.files()
    now = np.array([_stat(file) for file in files], dtype=np.int64)
    # The last row stands for whatever is not known; get_indexer says -1.
    then = np.vstack([known[["bytes", "mtime_ns"]].to_numpy(np.int64), [_UNREACHABLE]])
    same = (then[known.index.get_indexer(paths)] == now).all(axis=1)
    stale = np.flatnonzero(~same | (now == _UNREACHABLE).all(axis=1))
    fresh = [paths[row] for row in stale]
    probed = []
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for done, row in enumerate(pool.map(_probe, [files[row] for row in stale]), 1):
            probed.append(row)
            if progress:
                progress(done, len(fresh))
    if fresh:
        new = pd.DataFrame(probed, columns=list(COLUMNS), index=fresh)
        known = pd.concat([known.drop(fresh, errors="ignore"), new]) if len(known) else new
        memory = known.rename_axis("path").reset_index()
        write_to_cache(store, lambda file: memory.to_parquet(file, index=False))
    found = known.iloc[known.index.get_indexer(paths)].reset_index(drop=True)
    _check_claimed_hashes(manifest, found)
    kept = manifest.table.drop(columns=[c for c in COLUMNS if c in manifest.table])
    return manifest.with_table(pd.concat([kept, found], axis=1))


def _stat(file: str) -> tuple[int, int]:
    try:
        stat = os.stat(file)
    except OSError:
        return _UNREACHABLE
    return (stat.st_size, stat.st_mtime_ns)


def _probe(file: str) -> dict[str, Any]:
    size, mtime = _stat(file)
    row: dict[str, Any] = dict.fromkeys(PROBED, "") | dict.fromkeys(("width", "height"), 0)
    row |= {"jpeg_quality": 0, "exif": False, "bytes": size, "mtime_ns": mtime, "error": ""}
    try:
        row |= probe_image(read_file(Path(file)))
    except BadImage as error:
        row["error"] = str(error)
    except OSError as error:  # may be over next time: remembered under a state no file is in
        row |= {"error": error.strerror or str(error), "bytes": -1, "mtime_ns": -1}
    return row


def _known(manifest: Manifest, store: Path) -> pd.DataFrame:
    """What is known of files already, by path: `COLUMNS`; the manifest's word comes first."""
    tables = []
    for table in (manifest.table, _recall(store)):
        if table is not None and set(COLUMNS) - {"error"} <= set(table.columns):
            rows = table.reindex(columns=["path", *COLUMNS])
            for name in _NUMBERS:
                numbers = pd.to_numeric(rows[name], errors="coerce")
                rows[name] = numbers.where(numbers.abs() < 2**63)  # inf is a number too
            rows["exif"] = rows["exif"].astype(str).str.lower() == "true"
            rows["error"] = rows["error"].astype("str").fillna("")
            rows = rows.dropna(subset=list(_NUMBERS)).astype(dict.fromkeys(_NUMBERS, "int64"))
            tables.append(rows.set_index("path"))
    if not tables:
        return pd.DataFrame(columns=list(COLUMNS))
    known = pd.concat(tables)
    return known[~known.index.duplicated()]


def _recall(store: Path) -> pd.DataFrame | None:
    try:
        return pd.read_parquet(store)
    except (OSError, ValueError):  # absent, or cut short by a full disk: only costs a second look
        return None


def _check_claimed_hashes(manifest: Manifest, found: pd.DataFrame) -> None:
    if "sha256" not in manifest.table:
        return
    claimed = manifest.table["sha256"].fillna("").astype(str)
    differs = (claimed != "") & (found["error"] == "") & (claimed != found["sha256"])
    if differs.any():
        path = manifest.table["path"][differs.to_numpy()].iloc[0]
        raise UserError(
            f"{manifest.name}: {int(differs.sum())} file(s) differ from the manifest's sha256, "
            f"first {path!r}. Restore them, or write the manifest again (synthdetect manifest)."
        )

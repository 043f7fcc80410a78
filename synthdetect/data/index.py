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

import pandas as pd

from synthdetect.data.images import BadImage, probe_image, read_file
from synthdetect.data.manifest import Manifest
from synthdetect.errors import UserError
from synthdetect.files import cache_folder, replace_atomically, short_hash

PROBED = ("sha256", "width", "height", "format", "mode", "jpeg_quality", "exif")
_NUMBERS = ("bytes", "mtime_ns", "width", "height", "jpeg_quality")
COLUMNS = ("bytes", "mtime_ns", *PROBED, "error")
"""Columns that indexing adds; `error` is why a file cannot be read, empty where it can."""

_UNREACHABLE = (-1, -1)

Progress = Callable[[int, int], None]
"""Called with (files done, files to do)."""


def index(manifest: Manifest, *, progress: Progress | None = None) -> Manifest:
    """Add `COLUMNS` to a manifest, reading only files that are new or have changed.

    What is known comes from the manifest itself (if `synthdetect manifest` wrote it) and from the
    cache folder. Files are read by one thread a core; decoders release the interpreter's lock.

    Raises:
        UserError: a row's `sha256` differs from its file's content.
    """
    store = cache_folder() / "index" / f"{short_hash(str(manifest.root))}.parquet"
    known = _known(manifest, store)
    paths = manifest.table["path"].tolist()
    stats = [_stat(manifest.file(path)) for path in paths]
    fresh = [
        path
        for path, stat in zip(paths, stats, strict=True)
        if path not in known
        or (known[path]["bytes"], known[path]["mtime_ns"]) != stat
        or stat == _UNREACHABLE
    ]

    def probe(path: str) -> dict[str, Any]:
        return _probe(manifest.file(path))

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for done, (path, row) in enumerate(zip(fresh, pool.map(probe, fresh), strict=True), 1):
            known[path] = row
            if progress:
                progress(done, len(fresh))
    found = pd.DataFrame([known[path] for path in paths], columns=list(COLUMNS))
    _check_claimed_hashes(manifest, found)
    if fresh:
        _remember(store, pd.DataFrame.from_dict(known, orient="index", columns=list(COLUMNS)))
    kept = manifest.table.drop(columns=[c for c in COLUMNS if c in manifest.table])
    return manifest.with_table(pd.concat([kept, found], axis=1))


def _stat(file: Path) -> tuple[int, int]:
    try:
        stat = file.stat()
    except OSError:
        return _UNREACHABLE
    return (stat.st_size, stat.st_mtime_ns)


def _probe(file: Path) -> dict[str, Any]:
    size, mtime = _stat(file)
    row: dict[str, Any] = dict.fromkeys(PROBED, "") | dict.fromkeys(("width", "height"), 0)
    row |= {"jpeg_quality": 0, "exif": False, "bytes": size, "mtime_ns": mtime, "error": ""}
    try:
        row |= probe_image(read_file(file))
    except BadImage as error:
        row["error"] = str(error)
    except OSError as error:  # may be over next time: remembered under a state no file is in
        row |= {"error": error.strerror or str(error), "bytes": -1, "mtime_ns": -1}
    return row


def _known(manifest: Manifest, store: Path) -> dict[str, dict[str, Any]]:
    known: dict[str, dict[str, Any]] = {}
    for table in (_recall(store), manifest.table):
        if table is not None and set(COLUMNS) - {"error"} <= set(table.columns):
            rows = table.copy()
            for name in _NUMBERS:
                numbers = pd.to_numeric(rows[name], errors="coerce")
                rows[name] = numbers.where(numbers.abs() < 2**63)  # inf is a number too
            rows = rows.dropna(subset=list(_NUMBERS)).astype(dict.fromkeys(_NUMBERS, "int64"))
            rows["exif"] = rows["exif"].astype(str).str.lower() == "true"
            rows["error"] = rows.get("error", "")
            known |= dict(
                zip(rows["path"], rows[list(COLUMNS)].to_dict(orient="records"), strict=True)
            )
    return known


def _recall(store: Path) -> pd.DataFrame | None:
    try:
        return pd.read_parquet(store)
    except (OSError, ValueError):  # absent, or cut short by a full disk: only costs a second look
        return None


def _remember(store: Path, table: pd.DataFrame) -> None:
    store.parent.mkdir(parents=True, exist_ok=True)
    with replace_atomically(store) as temporary:
        table.rename_axis("path").reset_index().to_parquet(temporary, index=False)


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

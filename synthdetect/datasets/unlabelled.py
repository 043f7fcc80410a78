"""Images without labels, from a folder, an archive or a list."""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd
import pyarrow as pa

from synthdetect.datasets.archives import ARCHIVE_SUFFIXES, open_archive
from synthdetect.datasets.dialects import read_table
from synthdetect.datasets.layouts import walk
from synthdetect.datasets.manifest import SAMPLE, check_paths, load
from synthdetect.images.batches import Images
from synthdetect.images.reading import read_file
from synthdetect.system.errors import UserError


def unlabelled(data: str, *, option: str = "--data") -> Images:
    """List images that need no labels. `Images.seen_by` then sets how they are preprocessed.

    Args:
        data: A folder (searched with its subfolders, sorted by path), an archive (`.zip`, `.tar`,
            `.tar.gz`, `.tgz`; in its order), a manifest (`.csv`, `.parquet`) with a column `path`
            (in its order), or `sample`.
        option: The option that named `data`, for messages.

    Raises:
        UserError: If `data` does not exist, is damaged or of another kind, or holds no images.
    """
    if data == SAMPLE:
        manifest = load(SAMPLE)
        return ListedFiles(manifest.root, list(manifest.table["path"]))
    path = Path(data).expanduser()
    suffix = path.name.lower()
    if path.is_dir():
        names = ["/".join((*parts, name)) for parts, found in walk(path).items() for name in found]
        return ListedFiles(path.resolve(), sorted(names))
    if not path.is_file():
        raise UserError(f"{option}: {data!r} is neither '{SAMPLE}' nor a folder nor a file.")
    if suffix.endswith(ARCHIVE_SUFFIXES):
        return open_archive(path)
    if suffix.endswith((".csv", ".parquet")):
        return ListedFiles(path.resolve().parent, _listed_paths(path))
    raise UserError(
        f"{option}: {data}: give a folder, a {', '.join(ARCHIVE_SUFFIXES)}, .csv or .parquet file."
    )


class ListedFiles(Images):
    """Image files by their names, which are absolute or relative to a folder."""

    def __init__(self, root: Path, names: Sequence[str]) -> None:
        self.root = root
        self.names = pa.array(names, pa.large_string())

    def __len__(self) -> int:
        return len(self.names)

    def name(self, row: int) -> str:
        """The name as listed."""
        return str(self.names[row].as_py())

    def read(self, row: int) -> bytes:
        """Read the file."""
        return read_file(self.root / self.name(row))


def _listed_paths(path: Path) -> list[str]:
    try:
        table = pd.read_parquet(path) if path.suffix.lower() == ".parquet" else read_table(path)
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read as a list of images: {error}") from error
    if "path" not in table:
        raise UserError(f"{path}: has no column 'path'; it has {', '.join(map(str, table))}.")
    names = table["path"].astype(object).fillna("").astype(str).str.strip()
    if names.empty:
        raise UserError(f"{path}: holds no images.")
    check_paths(names, str(path))
    return list(names)

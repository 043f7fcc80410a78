"""Image files listed in a Parquet file, however many: their names are not held in memory."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from synthdetect.datasets.manifest import check_paths
from synthdetect.images.batches import Images
from synthdetect.images.contents import located, read_content
from synthdetect.images.video import is_video
from synthdetect.system.errors import UserError


class ParquetList(Images):
    """Image files by their names in the column `path`, absolute or relative to the file's folder.

    One group of rows of the file is in memory at a time. The check that no name occurs twice takes
    8 bytes for each name meanwhile.

    Args:
        path: The Parquet file.

    Raises:
        UserError: If the file cannot be read, has no column `path` or no rows; or if a name is
            empty, has a NUL character or `..`, or occurs twice.
    """

    def __init__(self, path: Path) -> None:
        self._path, self._root = path, path.resolve().parent
        try:
            with pq.ParquetFile(path) as file:
                columns = file.schema_arrow.names
                groups = [file.metadata.row_group(k).num_rows for k in range(file.num_row_groups)]
        except (OSError, pa.ArrowException) as error:
            raise UserError(f"{path}: cannot be read as a list of images: {error}") from error
        if "path" not in columns:
            raise UserError(f"{path}: has no column 'path'; it has {', '.join(columns)}.")
        if not sum(groups):
            raise UserError(f"{path}: holds no images.")
        self._begins = np.cumsum([0, *groups])
        self._group, self._names = -1, pa.array([], pa.large_string())
        self.has_videos = self._check()

    def __len__(self) -> int:
        return int(self._begins[-1])

    def name(self, row: int) -> str:
        """The name as listed."""
        group = int(np.searchsorted(self._begins, row, side="right")) - 1
        if group != self._group:
            self._group, self._names = group, pa.array(self._read(group), pa.large_string())
        return str(self._names[row - self._begins[group]].as_py())

    def read(self, row: int) -> bytes:
        """Read the file."""
        return read_content(located(self._root, self.name(row)))

    def _read(self, group: int) -> "pd.Series[str]":
        try:
            with pq.ParquetFile(self._path) as file:
                column = file.read_row_group(group, columns=["path"])["path"].to_pandas()
        except (OSError, pa.ArrowException) as error:
            reason = f"cannot be read as a list of images: {error}"
            raise UserError(f"{self._path}: {reason}") from error
        return column.astype(object).fillna("").astype(str).str.strip()

    def _check(self) -> bool:
        """Check all names, and return whether one of them is that of a video."""
        hashes, has_videos = np.empty(len(self), np.uint64), False
        for group in range(len(self._begins) - 1):
            names = self._read(group)
            check_paths(names, str(self._path), int(self._begins[group]))
            hashes[self._begins[group] : self._begins[group + 1]] = _hashes(names)
            has_videos = has_videos or any(map(is_video, names))
        hashes.sort()
        repeated = hashes[1:][hashes[1:] == hashes[:-1]]
        del hashes
        if len(repeated):  # seldom: else a hash of two names
            groups = (self._read(group) for group in range(len(self._begins) - 1))
            suspects = [names[np.isin(_hashes(names), repeated)] for names in groups]
            names = pd.concat(suspects)
            if twice := names[names.duplicated()].tolist():
                raise UserError(f"{self._path}: {twice[0]!r} is listed twice; keep one row.")
        return has_videos


def _hashes(names: "pd.Series[str]") -> npt.NDArray[np.uint64]:
    found: npt.NDArray[np.uint64] = pd.util.hash_array(names.to_numpy(object), categorize=False)
    return found

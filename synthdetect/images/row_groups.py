"""Images in the rows of Parquet files, read in any order.

A row of a Parquet file cannot be read without decompressing its row group. The images of a row
group are therefore unpacked once into a file of the cache folder, from which every process reads
single ones. Before a row group is unpacked, those used least recently are removed until all take at
most half of the disk that they and the free space have, or none is left. Removing them costs only
the time to unpack them again.
"""

import fcntl
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

import pyarrow as pa
import pyarrow.parquet as pq

from synthdetect.images.buckets import is_url, open_url, reaching
from synthdetect.images.reading import BadImage, check_size
from synthdetect.system.files import cache_folder, replace_atomically, short_hash

IMAGE_COLUMNS = ("image", "image_data", "image_bytes", "jpg", "png", "webp")
"""Names of columns of images, in the order in which they are looked for."""

MAX_GROUP_BYTES = 8 * 2**30
"""Greatest size of a row group's images. Larger ones are not unpacked."""

_MAX_ROWS = 10_000_000
_BATCH = 8  # images that are decompressed at a time; each of them may be large


def image_column(schema: pa.Schema) -> str:
    """Return the column that holds the bytes of images, or "" if there is none.

    It is a column of bytes, or a struct with the field `bytes`, as Hugging Face's datasets write
    it, that has a name of `IMAGE_COLUMNS`.
    """
    for name in IMAGE_COLUMNS:
        if name not in schema.names:
            continue
        kind = schema.field(name).type
        if pa.types.is_struct(kind) and kind.get_field_index("bytes") >= 0:
            if _is_binary(kind.field("bytes").type):
                return f"{name}.bytes"
        elif _is_binary(kind):
            return name
    return ""


def open_parquet(shard: str) -> IO[bytes]:
    """Open a Parquet file, by path or URL."""
    return open_url(shard) if is_url(shard) else open(shard, "rb")


def read_row(shard: str, stamp: int, group: int, row: int) -> bytes:
    """Read the image in a row of a row group.

    Args:
        shard: Path or URL of the Parquet file.
        stamp: A number that changes if its content does.
        group: The row group.
        row: The row in it.

    Raises:
        BadImage: If there is no such row, it has no image, or the file is damaged.
        OSError: If the file cannot be read, or the cache folder cannot be written.
    """
    file = _folder() / f"{short_hash(f'{shard} {stamp}')}-{group}"
    while True:
        with suppress(FileNotFoundError):  # not unpacked yet, or removed to make room
            return _read(file, row)
        _unpack(shard, group, file)


def _folder() -> Path:
    return cache_folder() / "row_groups"


def _read(file: Path, row: int) -> bytes:
    """Read an image of an unpacked row group: the number of rows, where each ends, all bytes."""
    with file.open("rb") as stream:
        os.utime(stream.fileno())
        (rows,) = struct.unpack("<q", stream.read(8))
        if row >= rows:
            raise BadImage(f"the row group has {rows:,} rows")
        stream.seek(8 * row)
        begin, end = struct.unpack("<2q", stream.read(16))
        if row == 0:  # where other rows have the end of the one before is the number of rows
            begin = 0
        check_size(end - begin)
        if end == begin:
            raise BadImage("the row holds no bytes of an image")
        stream.seek(8 * (rows + 1) + begin)
        return stream.read(end - begin)


def _unpack(shard: str, group: int, file: Path) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    # All threads and processes that want the row group wait for the first one to unpack it.
    with (file.parent / f"{short_hash(file.name)[:2]}.lock").open("ab") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if file.is_file():
            return
        with _refusing_damage(), open_parquet(shard) as stream:
            parquet = pq.ParquetFile(stream, buffer_size=2**20, pre_buffer=False)
            column = image_column(parquet.schema_arrow)
            if not column or group >= parquet.num_row_groups:
                raise BadImage("there is no such row group with images")
            size = _declared_size(parquet.metadata.row_group(group), column)
            _make_room(file.parent, size)
            with replace_atomically(file) as temporary, temporary.open("wb") as target:
                _write(parquet, group, column, target)


def _declared_size(group: Any, column: str) -> int:
    size = sum(
        group.column(i).total_uncompressed_size
        for i in range(group.num_columns)
        if group.column(i).path_in_schema == column
    )
    if size > MAX_GROUP_BYTES or group.num_rows > _MAX_ROWS:
        raise BadImage(
            f"the row group has {size:,} bytes in {group.num_rows:,} rows; "
            f"at most {MAX_GROUP_BYTES:,} in {_MAX_ROWS:,} are read"
        )
    return int(size)


def _write(parquet: Any, group: int, column: str, target: IO[bytes]) -> None:
    rows = parquet.metadata.row_group(group).num_rows
    ends: list[int] = []
    end = 0
    target.seek(8 * (rows + 1))
    for batch in parquet.iter_batches(_BATCH, [group], [column], use_threads=False):
        values = batch.column(0)
        for value in values.flatten()[0] if pa.types.is_struct(values.type) else values:
            if value.is_valid:
                data = memoryview(value.as_buffer())
                end += len(data)
                if end > MAX_GROUP_BYTES:
                    raise BadImage(f"the row group has more than {MAX_GROUP_BYTES:,} bytes")
                target.write(data)
            ends.append(end)
    if len(ends) != rows:
        raise BadImage(f"the row group has {len(ends):,} rows and declares {rows:,}")
    target.seek(0)
    target.write(struct.pack(f"<{rows + 1}q", rows, *ends))


@contextmanager
def _refusing_damage() -> Iterator[None]:
    with reaching():
        try:
            yield
        except pa.ArrowException as error:
            raise BadImage(f"damaged in the Parquet file: {error}") from error


def _make_room(folder: Path, size: int) -> None:
    """Remove the row groups used least recently, so that one more takes at most half the room."""
    files = []
    for entry in os.scandir(folder):
        if "-" in entry.name and not entry.name.startswith("."):  # else it is being written
            with suppress(FileNotFoundError):  # another process has removed it
                files.append((entry.stat(), entry.path))
    taken = sum(stat.st_size for stat, _ in files)
    system = os.statvfs(folder)
    allowed = (taken + system.f_bavail * system.f_frsize) // 2
    for stat, path in sorted(files, key=lambda entry: entry[0].st_mtime_ns):
        if taken + size <= allowed:
            break
        with suppress(FileNotFoundError):
            os.unlink(path)
            taken -= stat.st_size


def _is_binary(kind: pa.DataType) -> bool:
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))

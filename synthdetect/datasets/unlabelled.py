"""Images without labels, read where they lie: in a folder, in an archive, or by a list.

Archives are never unpacked: a member's bytes go from the archive to the decoder, so neither a
name that climbs out of its folder nor a link has any effect.
"""

import gzip
import os
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, Generic, Self, TypeVar

import numpy as np
import pandas as pd
import pyarrow as pa

from synthdetect.datasets.dialects import read_table
from synthdetect.datasets.layouts import is_image, walk
from synthdetect.datasets.manifest import SAMPLE, load
from synthdetect.images.batches import Images
from synthdetect.images.reading import BadImage, check_size, read_file
from synthdetect.system.errors import UserError

TAR_SUFFIXES = (".tar", ".tar.gz", ".tgz")

_GZIP = b"\x1f\x8b"
_PADDING = 2**20  # bytes after a tar's end; programs fill up to a record of 10 KiB
_EXTENSIONS = (
    tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE, tarfile.GNUTYPE_LONGNAME,
    tarfile.GNUTYPE_LONGLINK,
)  # fmt: skip
_LONGEST_EXTENSION = 2**20  # bytes of a long name and the like, which tarfile reads at once
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)  # LZMA may ask for gigabytes of memory
# What zipfile, tarfile and gzip raise on damaged archives.
_DAMAGE = (
    zipfile.BadZipFile,
    tarfile.TarError,
    zlib.error,
    struct.error,
    EOFError,
    ValueError,
    IndexError,
    OverflowError,
    RuntimeError,
)

Handle = TypeVar("Handle")


def unlabelled(data: str, *, option: str = "--data") -> Images:
    """List images that need no labels; `seen_by` then says as which squares to read them.

    Args:
        data: a folder (searched with its subfolders, sorted by path), an archive (`.zip`, `.tar`,
            `.tar.gz`, `.tgz`; in its order), a manifest (`.csv`, `.parquet`) with a column `path`
            (in its order), or `sample`.
        option: which gave it, for messages.

    Raises:
        UserError: nothing is there, it is damaged or of another kind, or it holds no images.
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
    if suffix.endswith(".zip"):
        return ZipImages(path)
    if suffix.endswith(TAR_SUFFIXES):
        return TarImages(path)
    if suffix.endswith((".csv", ".parquet")):
        return ListedFiles(path.resolve().parent, _paths_of(path))
    raise UserError(
        f"{option}: {data}: give a folder, a .zip, {', '.join(TAR_SUFFIXES)}, .csv or .parquet."
    )


class ListedFiles(Images):
    """Files by their names, which are relative to a folder or absolute."""

    def __init__(self, root: Path, names: Sequence[str]) -> None:
        self.root = root
        self.names = pa.array(names, pa.large_string())

    def __len__(self) -> int:
        return len(self.names)

    def name(self, row: int) -> str:
        """The name as listed."""
        return str(self.names[row].as_py())

    def read(self, row: int) -> bytes:
        """The content of the file."""
        return read_file(self.root / self.name(row))


class _Members(Images, Generic[Handle]):
    """Members of an archive, which every process opens for itself when it first reads."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.names = pa.array([], pa.large_string())
        self._opened: tuple[int, Handle] | None = None

    def __len__(self) -> int:
        return len(self.names)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_opened": None}

    def name(self, row: int) -> str:
        """The member's name, whole."""
        return str(self.names[row].as_py())

    def _handle(self) -> Handle:
        if self._opened is None or self._opened[0] != os.getpid():
            with _naming(self.path):
                self._opened = os.getpid(), self._open()
        return self._opened[1]

    def _open(self) -> Handle:
        raise NotImplementedError

    def _set_names(self, names: Sequence[str]) -> None:
        if not names:
            raise UserError(f"{self.path}: holds no images.")
        try:
            self.names = pa.array([name.removeprefix("./") for name in names], pa.large_string())
        except UnicodeEncodeError as error:
            raise UserError(f"{self.path}: {error.object!r} is not UTF-8; rename it.") from error


class ZipImages(_Members[zipfile.ZipFile]):
    """The images in a zip archive.

    Raises:
        UserError: it is damaged, or holds no images. A damaged member is an unreadable image.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        members = self._handle().infolist()
        places = [place for place, member in enumerate(members) if is_image(member.filename)]
        self._places = np.asarray(places, dtype=np.int64)
        self._set_names([members[place].filename for place in places])

    def read(self, row: int) -> bytes:
        """The unpacked member."""
        archive = self._handle()
        member = archive.infolist()[self._places[row]]
        kind = stat.S_IFMT(member.external_attr >> 16)  # 0: packed where files have no such kinds
        if kind not in (0, stat.S_IFREG):
            raise BadImage("a link" if stat.S_ISLNK(kind) else "a special member")
        check_size(member.file_size)  # zipfile never unpacks more than the size it declares
        if member.header_offset < 0:
            raise BadImage("damaged in the archive: it would begin before it")
        if member.flag_bits & 1:
            raise BadImage("encrypted")
        if member.compress_type not in _METHODS:
            raise BadImage(f"packed by method {member.compress_type}; use deflate")
        try:
            return archive.read(member)
        except _DAMAGE as error:
            raise BadImage(f"damaged in the archive: {error}") from error

    def _open(self) -> zipfile.ZipFile:
        return zipfile.ZipFile(self.path)


class TarImages(_Members[IO[bytes]]):
    """The images in a tar archive, compressed by gzip or not.

    Read in order, a compressed one is unpacked once; by several processes, once in each.

    Raises:
        UserError: it is damaged, or holds no images.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        stream = self._handle()
        with _naming(path), tarfile.open(fileobj=stream, mode="r:", tarinfo=_StrictInfo) as tar:
            members = [member for member in tar if is_image(member.name) and not member.isdir()]
            # A gzip's checksum stands at its end, which lies behind the tar's.
            if isinstance(stream, gzip.GzipFile) and len(stream.read(_PADDING + 1)) > _PADDING:
                raise tarfile.ReadError("it goes on after its end")
        self._begins = np.array([member.offset_data for member in members], dtype=np.int64)
        self._sizes = np.array([member.size for member in members], dtype=np.int64)
        self._refused = {row: _refusal(m) for row, m in enumerate(members) if _refusal(m)}
        self._set_names([member.name for member in members])

    def read(self, row: int) -> bytes:
        """The member."""
        if row in self._refused:
            raise BadImage(self._refused[row])
        size = int(self._sizes[row])
        check_size(size)
        stream = self._handle()
        try:
            stream.seek(int(self._begins[row]))
            data = stream.read(size)
        except _DAMAGE as error:
            raise BadImage(f"damaged in the archive: {error}") from error
        if len(data) < size:
            raise BadImage("the archive ends within it")
        return data

    def _open(self) -> IO[bytes]:
        stream = self.path.open("rb")
        compressed = stream.read(2) == _GZIP
        stream.seek(0)
        return gzip.open(stream) if compressed else stream  # type: ignore[return-value]


class _StrictInfo(tarfile.TarInfo):
    """A member's header. By itself, tarfile takes a damaged one for the end of the archive."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Self:
        info = super().frombuf(buf, encoding, errors)
        if info.type in _EXTENSIONS and info.size > _LONGEST_EXTENSION:
            raise tarfile.ReadError(f"a header that claims {info.size:,} bytes")
        return info

    @classmethod
    def fromtarfile(cls, archive: tarfile.TarFile) -> Self:
        try:
            return super().fromtarfile(archive)
        except (tarfile.InvalidHeaderError, tarfile.TruncatedHeaderError) as error:  # type: ignore[attr-defined]
            raise tarfile.ReadError(str(error)) from error


def _refusal(member: tarfile.TarInfo) -> str:
    if member.islnk() or member.issym():
        return "a link"
    return "a special member" if member.issparse() or not member.isreg() else ""


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Turn what is raised on an archive that cannot be read at all into an error that names it."""
    try:
        yield
    except (*_DAMAGE, OSError) as error:
        raise UserError(
            f"{path}: the archive cannot be read: {error}. Copy or pack it again."
        ) from error


def _paths_of(path: Path) -> list[str]:
    """The column `path` of a list."""
    try:
        table = pd.read_parquet(path) if path.suffix.lower() == ".parquet" else read_table(path)
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read as a list of images: {error}") from error
    if "path" not in table:
        raise UserError(f"{path}: has no column 'path'; it has {', '.join(map(str, table))}.")
    names = table["path"].astype(object).fillna("").astype(str).str.strip()
    if names.empty:
        raise UserError(f"{path}: holds no images.")
    climbing = names.str.split(r"[/\\]", regex=True).map(lambda parts: ".." in parts)
    for wrong, what in (
        (names == "", "has no path"),
        (names.str.contains("\0", regex=False), "has a NUL in its path, which no file's name has"),
        (climbing, "climbs out of its folder with '..'; give an absolute path"),
        (names.duplicated(), "is listed twice; keep one row"),
    ):
        if wrong.any():
            row = int(np.argmax(wrong.to_numpy()))
            raise UserError(f"{path}: row {row + 1} ({names[row]!r}) {what}.")
    return list(names)

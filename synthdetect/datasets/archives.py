"""Members of zip and tar archives, read without unpacking the archive.

A member's bytes go straight from the archive to the decoder, so that neither a member name that
climbs out of its folder nor a link can have any effect.
"""

import gzip
import os
import stat
import tarfile
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any, Generic, TypeVar

import numpy as np
import pyarrow as pa

from synthdetect.datasets.layouts import is_image
from synthdetect.datasets.tars import DAMAGE, LINK, SPECIAL, StrictTarInfo, refusal, refusing_damage
from synthdetect.images.batches import Images
from synthdetect.images.reading import BadImage, check_size
from synthdetect.system.errors import UserError

ARCHIVE_SUFFIXES = (".zip", ".tar", ".tar.gz", ".tgz")

_GZIP_MAGIC = b"\x1f\x8b"
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)  # LZMA may ask for gigabytes of memory
_MAX_PADDING = 2**20  # bytes after a tar's end; programs pad to a record of 10 KiB
Handle = TypeVar("Handle")


class BadMember(BadImage):
    """A member of a zip archive that cannot be read. The message is a short reason."""


def open_member(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> IO[bytes]:
    """Open a member of a zip archive. Reading it gives at most `member.file_size` bytes.

    Raises:
        BadMember: If it is no regular file, encrypted, compressed by another method than deflate,
            or damaged. Damage that shows only in the content raises one of `DAMAGE` on reading.
    """
    kind = stat.S_IFMT(member.external_attr >> 16)  # 0 where the packing system has no file types
    if kind not in (0, stat.S_IFREG):
        raise BadMember(LINK if stat.S_ISLNK(kind) else SPECIAL)
    if member.header_offset < 0:
        raise BadMember("damaged in the archive: it begins before the archive")
    if member.flag_bits & 1:
        raise BadMember("encrypted")
    if member.compress_type not in _METHODS:
        raise BadMember(f"compressed by method {member.compress_type}; use deflate")
    try:
        return archive.open(member)
    except DAMAGE as error:
        raise BadMember(f"damaged in the archive: {error}") from error


def open_archive(path: Path) -> "ZipImages | TarImages":
    """List the images in an archive, whose name ends in one of `ARCHIVE_SUFFIXES`.

    Raises:
        UserError: If the archive is damaged or holds no images.
    """
    return ZipImages(path) if path.name.lower().endswith(".zip") else TarImages(path)


class _ArchiveImages(Images, Generic[Handle]):
    """Images in an archive, which every process opens for itself when it first reads."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.names = pa.array([], pa.large_string())
        self._opened: tuple[int, Handle] | None = None

    def __len__(self) -> int:
        return len(self.names)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_opened": None}

    def name(self, row: int) -> str:
        """The member's name, with its folders."""
        return str(self.names[row].as_py())

    def _handle(self) -> Handle:
        if self._opened is None or self._opened[0] != os.getpid():
            with refusing_damage(self.path):
                self._opened = os.getpid(), self._open()
        return self._opened[1]

    def _open(self) -> Handle:
        raise NotImplementedError

    def _set_names(self, names: Sequence[str]) -> None:
        if not names:
            raise UserError(f"{self.path}: the archive holds no images.")
        try:
            self.names = pa.array([name.removeprefix("./") for name in names], pa.large_string())
        except UnicodeEncodeError as error:
            raise UserError(
                f"{self.path}: the name {error.object!r} is not UTF-8. Rename it."
            ) from error


class ZipImages(_ArchiveImages[zipfile.ZipFile]):
    """The images in a zip archive, in its order. A damaged member is an unreadable image.

    Raises:
        UserError: If the archive is damaged or holds no images.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        members = self._handle().infolist()
        indices = [i for i, member in enumerate(members) if is_image(member.filename)]
        self._indices = np.asarray(indices, dtype=np.int64)
        self._set_names([members[i].filename for i in indices])

    def read(self, row: int) -> bytes:
        """Unpack the member."""
        archive = self._handle()
        member = archive.infolist()[self._indices[row]]
        check_size(member.file_size)
        with open_member(archive, member) as stream:
            try:
                return stream.read()
            except DAMAGE as error:
                raise BadMember(f"damaged in the archive: {error}") from error

    def _open(self) -> zipfile.ZipFile:
        return zipfile.ZipFile(self.path)


class TarImages(_ArchiveImages[IO[bytes]]):
    """The images in a tar archive, compressed by gzip or not, in its order.

    A compressed archive that is read in order is unpacked once by each process.

    Raises:
        UserError: If the archive is damaged or holds no images.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        stream = self._handle()
        with (
            refusing_damage(path),
            tarfile.open(fileobj=stream, mode="r:", tarinfo=StrictTarInfo) as tar,
        ):
            members = [member for member in tar if is_image(member.name) and not member.isdir()]
            # gzip verifies its checksum only at its own end, which follows that of the tar.
            if isinstance(stream, gzip.GzipFile):
                padding = stream.read(_MAX_PADDING + 1)
                if len(padding) > _MAX_PADDING:
                    raise tarfile.ReadError("data follow the end of the archive")
        self._offsets = np.array([member.offset_data for member in members], dtype=np.int64)
        self._sizes = np.array([member.size for member in members], dtype=np.int64)
        self._refused = {row: refusal(m) for row, m in enumerate(members) if refusal(m)}
        self._set_names([member.name for member in members])

    def read(self, row: int) -> bytes:
        """Read the member."""
        if row in self._refused:
            raise BadImage(self._refused[row])
        size = int(self._sizes[row])
        check_size(size)
        stream = self._handle()
        try:
            stream.seek(int(self._offsets[row]))
            data = stream.read(size)
        except DAMAGE as error:
            raise BadImage(f"damaged in the archive: {error}") from error
        if len(data) < size:
            raise BadImage("the archive ends within it")
        return data

    def _open(self) -> IO[bytes]:
        stream = self.path.open("rb")
        compressed = stream.read(2) == _GZIP_MAGIC
        stream.seek(0)
        return gzip.open(stream) if compressed else stream  # type: ignore[return-value]

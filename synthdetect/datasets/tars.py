"""Tar archives from anyone: what is damaged, and what is refused."""

import struct
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Self

from synthdetect.system.errors import UserError

DAMAGE = (
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
"""What `zipfile`, `tarfile` and `gzip` raise on damaged archives."""

LINK = "a link, which is not followed"
SPECIAL = "not a regular file"
_MAX_EXTENSION = 2**20  # bytes of a long name or the like, which tarfile reads at once
_EXTENSIONS = (
    tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE, tarfile.GNUTYPE_LONGNAME,
    tarfile.GNUTYPE_LONGLINK,
)  # fmt: skip


class StrictTarInfo(tarfile.TarInfo):
    """A member's header. By default, tarfile takes a damaged one for the end of the archive."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Self:
        info = super().frombuf(buf, encoding, errors)
        if info.type in _EXTENSIONS and info.size > _MAX_EXTENSION:
            raise tarfile.ReadError(f"a header declares {info.size:,} bytes")
        return info

    @classmethod
    def fromtarfile(cls, archive: tarfile.TarFile) -> Self:
        try:
            return super().fromtarfile(archive)
        except (tarfile.InvalidHeaderError, tarfile.TruncatedHeaderError) as error:  # type: ignore[attr-defined]
            raise tarfile.ReadError(str(error)) from error


def refusal(member: tarfile.TarInfo) -> str:
    """Return why a member is not read, or "" if it is a regular file."""
    if member.islnk() or member.issym():
        return LINK
    return SPECIAL if member.issparse() or not member.isreg() else ""


@contextmanager
def refusing_damage(path: Path | str) -> Iterator[None]:
    """Turn what reading a damaged archive raises into a `UserError` that names the archive."""
    try:
        yield
    except (*DAMAGE, OSError) as error:
        raise UserError(
            f"{path}: the archive cannot be read: {error}. Copy or pack it again."
        ) from error

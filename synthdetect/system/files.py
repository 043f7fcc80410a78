"""Writing files so that nobody ever sees half of one."""

import hashlib
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from synthdetect.system.errors import UserError


@contextmanager
def replace_atomically(target: Path) -> Iterator[Path]:
    """Give a temporary path beside `target`, and move it there once it is whole and on disk.

    Whatever happens before that, even SIGKILL or a power cut, the old file stays as it was.
    """
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)


def require_folder(folder: Path, option: str) -> None:
    """See, without making it, that a folder is there or can be made, and written into.

    Raises:
        UserError: it cannot; `option` gave it.
    """
    _require_room(folder, folder, option)


def require_file(file: Path, option: str) -> None:
    """See, without making it, that a file can be written.

    Raises:
        UserError: it cannot; `option` gave it.
    """
    if file.is_dir():
        raise UserError(f"{option}: {file} is a folder. Give a file's name.")
    _require_room(file.parent, file, option)


def _require_room(folder: Path, given: Path, option: str) -> None:
    there = folder.expanduser().absolute()
    while not os.path.lexists(there):
        there = there.parent
    if not (there.is_dir() and os.access(there, os.W_OK | os.X_OK)):
        raise UserError(
            f"{option}: {given} cannot be written: {there} is no folder, or is closed to you. "
            "Give another."
        )


def cache_folder() -> Path:
    """Where derived data are kept that can be made again: `$SYNTHDETECT_CACHE`, or the user's."""
    given = os.environ.get("SYNTHDETECT_CACHE")
    if given:
        return Path(given).expanduser()
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "synthdetect"


def keep(target: Path, write: Callable[[Path], object]) -> None:
    """Write derived data to a file of the cache folder, or, where that cannot be, go on without.

    Args:
        target: the file.
        write: writes it, under the name that it is given.
    """
    with suppress(OSError):  # closed, or full: all that is lost is the time to make them again
        target.parent.mkdir(parents=True, exist_ok=True)
        with replace_atomically(target) as temporary:
            write(temporary)


def short_hash(text: str) -> str:
    """Sixteen hexadecimal digits that stand for a text, fit for a file's name."""
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's content, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()

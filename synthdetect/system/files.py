"""Atomic writes, checks of output paths, and the cache folder."""

import hashlib
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from synthdetect.system.errors import UserError


@contextmanager
def replace_atomically(target: Path) -> Iterator[Path]:
    """Yield a temporary path beside `target`, and move the file there once it is complete on disk.

    If the process is interrupted before that, even by SIGKILL or a power cut, the old file stays
    as it was.
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
    """Check that a folder exists or can be created, and is writable. Nothing is created.

    Args:
        folder: The folder.
        option: Option that the path comes from, for messages.

    Raises:
        UserError: If the folder cannot be written.
    """
    _require_writable(folder, folder, option)


def require_file(file: Path, option: str) -> None:
    """Check that a file can be written. Nothing is created.

    Args:
        file: The file.
        option: Option that the path comes from, for messages.

    Raises:
        UserError: If the file cannot be written, or is a folder.
    """
    if file.is_dir():
        raise UserError(f"{option}: {file} is a folder. Give the name of a file.")
    _require_writable(file.parent, file, option)


def _require_writable(folder: Path, given: Path, option: str) -> None:
    nearest = folder.expanduser().absolute()
    while not os.path.lexists(nearest):
        nearest = nearest.parent
    if not (nearest.is_dir() and os.access(nearest, os.W_OK | os.X_OK)):
        raise UserError(
            f"{option}: {given} cannot be written: {nearest} is not a writable folder. "
            "Give another path."
        )


def cache_folder() -> Path:
    """Folder of derived data that can be computed again.

    This is `$SYNTHDETECT_CACHE`, else `synthdetect` in `$XDG_CACHE_HOME` or `~/.cache`.
    """
    given = os.environ.get("SYNTHDETECT_CACHE")
    if given:
        return Path(given).expanduser()
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "synthdetect"


def write_to_cache(target: Path, write: Callable[[Path], object]) -> None:
    """Write a file of the cache folder atomically; errors of the file system are ignored.

    Args:
        target: The file.
        write: Function that writes the content to the path it is given.
    """
    with suppress(OSError):  # a full or read-only disk costs only the time to compute again
        target.parent.mkdir(parents=True, exist_ok=True)
        with replace_atomically(target) as temporary:
            write(temporary)


def short_hash(text: str) -> str:
    """First 16 hexadecimal digits of a text's SHA-256, for use in file names."""
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's content in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()

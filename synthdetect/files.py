"""Writing files so that nobody ever sees half of one."""

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


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


def cache_folder() -> Path:
    """Where derived data are kept that can be made again: `$SYNTHDETECT_CACHE`, or the user's."""
    given = os.environ.get("SYNTHDETECT_CACHE")
    if given:
        return Path(given).expanduser()
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "synthdetect"


def short_hash(text: str) -> str:
    """Sixteen hexadecimal digits that stand for a text, fit for a file's name."""
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's content, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()

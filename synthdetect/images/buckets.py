"""Objects in buckets and on web servers, by URL, through fsspec.

File systems are looked up for each access, since fsspec keeps them by process: one that a worker
inherits from the process that started it cannot be used.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import IO, Any

import fsspec

from synthdetect.images.reading import BadImage
from synthdetect.system.errors import UserError

PROTOCOLS = ("s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "http", "https", "memory")
"""Protocols of URLs that are read. fsspec has further ones, some of which run code or chain others,
and a list of images is untrusted."""

_STAMPS = ("ETag", "etag", "md5Hash", "crc32c", "mtime", "LastModified", "last_modified", "created")


def is_url(path: str) -> bool:
    """Whether a path is a URL and not a file of this machine."""
    return "://" in path


def filesystem(url: str) -> tuple[Any, str]:
    """Return the file system of a URL, and the path in it.

    Raises:
        UserError: If the protocol is not one of `PROTOCOLS`, or its package is not installed.
    """
    protocol = url.partition("://")[0]
    if protocol not in PROTOCOLS or "::" in url:
        raise UserError(f"{url}: give a URL that begins with one of: {', '.join(PROTOCOLS)}.")
    try:
        fs, path = fsspec.core.url_to_fs(url)
    except ImportError as error:
        hint = ' (for S3: pip install "synthdetect[buckets]")' if protocol[:2] == "s3" else ""
        raise UserError(f"{url}: {error}{hint}.") from error
    return fs, path


@contextmanager
def reaching() -> Iterator[None]:
    """Turn errors of a bucket's client, such as missing credentials, into `OSError`."""
    try:
        yield
    except (OSError, UserError, BadImage):
        raise
    except Exception as error:  # each client has exceptions of its own
        raise OSError(_reason(error)) from error


def read_ranges(urls: Sequence[str], ranges: Sequence[tuple[int, int]]) -> list[bytes | OSError]:
    """Read parts of objects, all at the same time where the client can.

    Args:
        urls: URLs of one or several file systems.
        ranges: The first byte of each part, and the byte after its last.

    Returns:
        The content of each part, shorter where the object ends within it; or why it cannot be read.
    """
    found: list[bytes | OSError] = [OSError("not read")] * len(urls)
    by_system: dict[int, tuple[Any, list[tuple[int, str]]]] = {}
    for row, url in enumerate(urls):
        fs, path = filesystem(url)
        by_system.setdefault(id(fs), (fs, []))[1].append((row, path))
    for fs, rows in by_system.values():
        starts, ends = zip(*(ranges[row] for row, _ in rows), strict=True)
        with reaching():
            parts = fs.cat_ranges(
                [path for _, path in rows], list(starts), list(ends), on_error="return"
            )
        for (row, _), part in zip(rows, parts, strict=True):
            found[row] = part if isinstance(part, bytes) else _os_error(part)
    return found


def open_url(url: str, mode: str = "rb", *, block: int = 8 * 2**20) -> IO[bytes]:
    """Open an object.

    Args:
        url: Its URL.
        mode: `rb` or `wb`. What is written appears when the file is closed.
        block: Bytes that are read at once.

    Raises:
        OSError: If it does not exist or cannot be reached.
    """
    fs, path = filesystem(url)
    with reaching():
        reading = {"cache_type": "readahead"} if mode == "rb" else {}
        stream: IO[bytes] = fs.open(path, mode, block_size=block, **reading)
    return stream


def stamps(urls: Sequence[str]) -> dict[str, str]:
    """Return a text for each object that is there, which changes if its content does."""
    found: dict[str, str] = {}
    listed: dict[str, dict[str, Any]] = {}
    for url in urls:
        fs, path = filesystem(url)
        parent = url.rpartition("/")[0]
        with suppress(OSError), reaching():
            if url.startswith("http"):  # a web server seldom lists what it has
                info = fs.info(path)
            else:
                if parent not in listed:  # one request for a thousand objects
                    fs.invalidate_cache()
                    entries = fs.ls(fs._parent(path), detail=True)
                    listed[parent] = {entry["name"]: entry for entry in entries}
                info = listed[parent].get(path)
            if info is not None:
                mark = next((info[key] for key in _STAMPS if info.get(key)), "")
                found[url] = f"{info.get('size')} {mark}"
    return found


def find(url: str) -> list[str]:
    """Return the URL of an object, or of all objects below a folder, each beginning as `url` does.

    Raises:
        OSError: If the bucket cannot be reached, or there is nothing.
    """
    fs, path = filesystem(url)
    with reaching():
        fs.invalidate_cache()
        found = fs.find(path)
        if not found:
            raise FileNotFoundError("there is no such object or folder")
    return [url.rstrip("/") + name[len(path.rstrip("/")) :] for name in sorted(found)]


def _os_error(error: BaseException) -> OSError:
    return error if isinstance(error, OSError) else OSError(_reason(error))


def _reason(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__

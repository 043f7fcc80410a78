"""The content of an image, by its path in a manifest.

The path is that of a file or the URL of an object, or it names a member of a shard by where its
bytes are:

    train-000000.tar#1536+48231/0_real/0001.jpg     48,231 bytes from byte 1,536 of a tar
    train-00000.parquet#3+17/0001.png               row 17 of row group 3 of a Parquet file

The name after the last slash is for messages, and for pairs of images with the same name; reading
needs none of it. Members can therefore be read in any order, and the order of an epoch is that of
single files.
"""

import os
import re
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from synthdetect.images.buckets import is_url, read_ranges, stamps
from synthdetect.images.reading import MAX_BYTES, BadImage, check_size, read_file
from synthdetect.images.row_groups import read_row
from synthdetect.system.files import short_hash

SHARD_SUFFIXES = (".tar", ".parquet")
"""Suffixes of shards in lower case."""

_MEMBER = re.compile(r"(.+?\.(?:tar|parquet))#(\d{1,15})\+(\d{1,15})/", re.IGNORECASE | re.DOTALL)
_looked_up: dict[str, int] = {}  # the stamps of shards in buckets
_AT_ONCE = 2**24  # bytes of a member up to which it is read together with others


class Member(NamedTuple):
    """An image in a shard.

    Attributes:
        shard: Path or URL of the shard.
        start: Its first byte in a tar; its row group in a Parquet file.
        extent: Its bytes in a tar; its row in the row group of a Parquet file.
    """

    shard: str
    start: int
    extent: int

    @property
    def in_tar(self) -> bool:
        """Whether the shard is a tar archive."""
        return self.shard.lower().endswith(".tar")


def member_path(shard: str, start: int, extent: int, name: str) -> str:
    """Return the path in a manifest of an image in a shard; see `Member` for the numbers."""
    return f"{shard}#{start}+{extent}/{name}"


def member_of(path: str) -> Member | None:
    """Return the member of a shard that a path names, or None if it names a file or an object."""
    found = _MEMBER.match(path) if "#" in path else None
    return found and Member(found[1], int(found[2]), int(found[3]))


def located(root: Path | str, path: str) -> str:
    """Return the path of an image from anywhere, from one that may be relative to a root."""
    return path if is_url(path) else os.path.join(root, path)


def read_content(path: str) -> bytes:
    """Read the content of an image, wherever it is.

    Raises:
        BadImage: If it is larger than `reading.MAX_BYTES`, no regular file, or not in its shard.
        OSError: If it cannot be reached.
        UserError: If the package for its URL is not installed.
    """
    member = member_of(path)
    if member and not member.in_tar:
        return read_row(member.shard, _stamp(member.shard), member.start, member.extent)
    if is_url(path):
        return _raised(read_contents([path])[0])
    if member is None:
        return read_file(Path(path))
    check_size(member.extent)
    with open(member.shard, "rb") as stream:
        stream.seek(member.start)
        return _whole(stream.read(member.extent), member)


def read_contents(paths: Sequence[str]) -> list[bytes | OSError | BadImage]:
    """Read the contents of objects and of members of tars in buckets at the same time.

    Returns:
        The content of each, or why it cannot be read.
    """
    members = [member_of(path) for path in paths]
    urls, ranges = [], []
    for path, member in zip(paths, members, strict=True):
        urls.append(member.shard if member else path)
        begin, size = (member.start, member.extent) if member else (0, MAX_BYTES + 1)
        ranges.append((begin, begin + min(size, MAX_BYTES + 1)))
    found: list[bytes | OSError | BadImage] = []
    for member, part in zip(members, read_ranges(urls, ranges), strict=True):
        try:
            if isinstance(part, bytes):
                check_size(len(part))
                part = _whole(part, member) if member else part
            found.append(part)
        except BadImage as error:
            found.append(error)
    return found


def can_be_read_together(path: str) -> bool:
    """Whether `read_contents` reads an image, and its size in memory is known to be moderate."""
    member = member_of(path) if is_url(path) else None
    return member is not None and member.in_tar and member.extent <= _AT_ONCE


def shard_stamps(shards: Iterable[str]) -> dict[str, int]:
    """Return a number for each shard that changes if its content does; -1 if it is not there."""
    found = dict.fromkeys(shards, -1)
    remote = stamps([shard for shard in found if is_url(shard)])
    for shard in found:
        if shard in remote:
            found[shard] = int(short_hash(remote[shard]), 16) >> 4
        elif not is_url(shard):
            with suppress(OSError):
                found[shard] = os.stat(shard).st_mtime_ns
    _looked_up.update({shard: found[shard] for shard in found if is_url(shard)})
    return found


def _stamp(shard: str) -> int:
    """Return the same number; that of an object in a bucket as it was looked up last."""
    if not is_url(shard):
        return os.stat(shard).st_mtime_ns
    stamp = _looked_up.get(shard, -1)
    if stamp == -1:
        stamp = shard_stamps([shard])[shard]
    if stamp == -1:
        raise FileNotFoundError("the shard is not there")
    return stamp


def _whole(data: bytes, member: Member) -> bytes:
    if len(data) < member.extent:
        raise BadImage("the shard ends within it")
    return data


def _raised(content: bytes | OSError | BadImage) -> bytes:
    if isinstance(content, Exception):
        raise content
    return content

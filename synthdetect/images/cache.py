"""Decoded images on disk, so that decoding and resizing happen once for all epochs and folds.

A cache belongs to one set of image contents and one way of preprocessing; change either and it is
another cache. Files are written and read by position, never mapped into memory: a full disk then is
an error that switches the cache off, not a signal that kills the process. Each square has its
checksum beside it, so that half of one, which a full disk or a power cut may leave, is none.
"""

import hashlib
import os
import shutil
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import PIL

from synthdetect.images.geometry import Preprocess
from synthdetect.system.files import cache_folder

_VERSION = 2
_PIXELS, _CHECKSUMS = "pixels", "checksums"
_WIDTH = 4  # bytes of a checksum


class DecodedCache:
    """Squares of uint8 pixels by the SHA-256 of the file they come from.

    Args:
        hashes: of all images that may be asked for.
        preprocess: what makes them squares; one that places crops at random cannot be cached.
        limit: bytes; images beyond it are decoded each time, and older caches make room.
        views: where several squares of each image are kept, what they are of it; their crops are
            then at the centre, whatever the geometry.
    """

    def __init__(
        self, hashes: Sequence[str], preprocess: Preprocess, limit: int, views: Sequence[str] = ()
    ) -> None:
        self._hashes = np.unique(np.asarray(hashes, dtype="S64"))
        self._shape = (preprocess.image_size, preprocess.image_size, 3)
        self._bytes = int(np.prod(self._shape))
        self._views = max(1, len(views))
        room = limit // (self._bytes * self._views)
        self._capacity = 0 if preprocess.random and not views else min(len(self._hashes), room)
        key = hashlib.sha256(
            f"{_VERSION} {PIL.__version__} {preprocess} {' '.join(views)}".encode()
            + self._hashes.tobytes()
        ).hexdigest()
        self._folder = cache_folder() / "decoded" / key[:32]
        self._files: tuple[int, int] | None = None
        if self._capacity:
            self._open(limit)

    def slots(self, hashes: Sequence[str], view: int = 0) -> npt.NDArray[np.int64]:
        """Where images of these hashes are kept, shape (images,); -1: not cached.

        Args:
            hashes: of the images.
            view: which of the views, by its place among them.
        """
        images = np.searchsorted(self._hashes, np.asarray(hashes, dtype="S64"))
        return np.where(images < self._capacity, images * self._views + view, -1)

    def get(self, slot: int) -> npt.NDArray[np.uint8] | None:
        """The pixels kept in a slot, shape (size, size, 3), or None."""
        if self._files is None or slot < 0:
            return None
        pixels, checksums = self._files
        wanted = os.pread(checksums, _WIDTH, slot * _WIDTH)
        if not any(wanted):
            return None
        data = os.pread(pixels, self._bytes, slot * self._bytes)
        if len(data) < self._bytes or _checksum(data) != wanted:
            return None
        return np.frombuffer(data, np.uint8).reshape(self._shape)

    def put(self, slot: int, square: npt.NDArray[np.uint8]) -> None:
        """Keep pixels; does nothing where there is no room."""
        if self._files is None or slot < 0:
            return
        pixels, checksums = self._files
        data = np.ascontiguousarray(square).tobytes()
        try:
            os.pwrite(pixels, data, slot * self._bytes)
            os.pwrite(checksums, _checksum(data), slot * _WIDTH)
        except OSError:  # a full disk
            self._files = None

    def __getstate__(self) -> dict[str, Any]:
        """For workers that are started afresh (macOS, Windows): open files do not travel."""
        return {**self.__dict__, "_files": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        if self._capacity:
            self._open_files()

    def _open(self, limit: int) -> None:
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            os.utime(self._folder)
            _make_room(self._folder, limit - self._capacity * self._views * self._bytes)
        except OSError:  # nowhere to write: everything works without a cache
            return
        self._open_files()

    def _open_files(self) -> None:
        flags = os.O_RDWR | os.O_CREAT
        try:
            self._files = (
                os.open(self._folder / _PIXELS, flags, 0o600),
                os.open(self._folder / _CHECKSUMS, flags, 0o600),
            )
        except OSError:
            self._files = None


def _checksum(data: bytes) -> bytes:
    """A checksum that is not 0, which is what stands where nothing was written."""
    return (zlib.crc32(data) or 1).to_bytes(_WIDTH, "little")


def _make_room(keep: Path, allowed: int) -> None:
    """Remove the caches used least recently until the others take no more than is allowed."""
    others = [folder for folder in keep.parent.iterdir() if folder.is_dir() and folder != keep]
    others.sort(key=lambda folder: folder.stat().st_mtime, reverse=True)
    for folder in others:
        allowed -= sum(file.stat().st_blocks * 512 for file in folder.iterdir())
        if allowed < 0:
            shutil.rmtree(folder, ignore_errors=True)

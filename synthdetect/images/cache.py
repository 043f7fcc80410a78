"""Cache of squares on disk, so that images are decoded and resized once for all epochs and folds.

A cache belongs to one set of image contents and one preprocessing; changing either gives another
cache. Its files are read and written by position and not mapped into memory. A full disk is then an
error that switches the cache off, instead of a signal that kills the process. A checksum of each
square detects incomplete ones, which a full disk or a power cut may leave.
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

from synthdetect.images.geometry import SQUARE_VERSION, Preprocess
from synthdetect.system.files import cache_folder

_VERSION = 2  # of the files of a cache
_PIXELS, _CHECKSUMS = "pixels", "checksums"
_CHECKSUM_BYTES = 4


class DecodedCache:
    """Cache of squares by the SHA-256 of their image files.

    If the folder cannot be written, or the disk is full, nothing is cached.

    Args:
        hashes: SHA-256 of all images that may be requested.
        preprocess: Preprocessing that makes the squares. Without views, nothing is cached if its
            crops are random.
        limit: Greatest size in bytes. Images beyond it are not cached, and the caches used least
            recently are removed to make room.
        views: Names of the squares per image, if there are several; their crops are then at the
            centre for every geometry.
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
            f"{_VERSION} {SQUARE_VERSION} {PIL.__version__} {preprocess} {' '.join(views)}".encode()
            + self._hashes.tobytes()
        ).hexdigest()
        self._folder = cache_folder() / "decoded" / key[:32]
        self._files: tuple[int, int] | None = None
        if self._capacity:
            self._open(limit)

    def slots(self, hashes: Sequence[str], view: int = 0) -> npt.NDArray[np.int64]:
        """Slots of images in the cache.

        Args:
            hashes: SHA-256 of the images.
            view: Index of the view.

        Returns:
            Shape (images,); -1 for an image that is not cached.
        """
        images = np.searchsorted(self._hashes, np.asarray(hashes, dtype="S64"))
        return np.where(images < self._capacity, images * self._views + view, -1)

    def get(self, slot: int) -> npt.NDArray[np.uint8] | None:
        """Square in a slot, shape (image_size, image_size, 3), or None if there is none."""
        if self._files is None or slot < 0:
            return None
        pixels, checksums = self._files
        expected = os.pread(checksums, _CHECKSUM_BYTES, slot * _CHECKSUM_BYTES)
        if not any(expected):
            return None
        data = os.pread(pixels, self._bytes, slot * self._bytes)
        if len(data) < self._bytes or _checksum(data) != expected:
            return None
        return np.frombuffer(data, np.uint8).reshape(self._shape)

    def has(self, slot: int) -> bool:
        """Whether there is a square in a slot, of which only `get` tells whether it is whole."""
        if self._files is None or slot < 0:
            return False
        return any(os.pread(self._files[1], _CHECKSUM_BYTES, slot * _CHECKSUM_BYTES))

    def put(self, slot: int, square: npt.NDArray[np.uint8]) -> None:
        """Store a square in a slot. Does nothing for slot -1."""
        if self._files is None or slot < 0:
            return
        pixels, checksums = self._files
        data = np.ascontiguousarray(square).tobytes()
        try:
            os.pwrite(pixels, data, slot * self._bytes)
            os.pwrite(checksums, _checksum(data), slot * _CHECKSUM_BYTES)
        except OSError:  # a full disk
            self._files = None

    def __getstate__(self) -> dict[str, Any]:
        """Leave out open files, which cannot be pickled for spawned workers (macOS, Windows)."""
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
        except OSError:  # the folder cannot be written; nothing is cached
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
    """CRC-32, with 1 in place of 0, since 0 marks an empty slot."""
    return (zlib.crc32(data) or 1).to_bytes(_CHECKSUM_BYTES, "little")


def _make_room(keep: Path, allowed: int) -> None:
    """Remove the caches used least recently until all others take at most `allowed` bytes."""
    others = [folder for folder in keep.parent.iterdir() if folder.is_dir() and folder != keep]
    others.sort(key=lambda folder: folder.stat().st_mtime, reverse=True)
    for folder in others:
        allowed -= sum(file.stat().st_blocks * 512 for file in folder.iterdir())
        if allowed < 0:
            shutil.rmtree(folder, ignore_errors=True)

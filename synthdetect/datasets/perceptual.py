"""Perceptual hashes of images, kept in the cache folder by content."""

from pathlib import Path

import imagehash
import numpy as np
import numpy.typing as npt
import pandas as pd
import PIL
from PIL import Image

from synthdetect.system.files import cache_folder, short_hash, write_to_cache

Hashes = npt.NDArray[np.uint64]

_VERSION = 2
_WORDS = ["coarse", "fine_1", "fine_2", "fine_3", "fine_4"]
_SIDE = 64  # pixels per side from which the fine hash is computed


def perceptual_hash(image: Image.Image) -> Hashes:
    """Return the signs of the lowest DCT coefficients relative to their median.

    Images that look alike differ in few of these bits (Zauner 2010; the ImageHash package).

    Returns:
        Shape (5,): one word of 64 coarse bits, then four words of 256 fine bits.
    """
    # The gap reduces a large image coarsely first, in a tenth of the time.
    side = (_SIDE, _SIDE)
    small = image.convert("L").resize(side, Image.Resampling.LANCZOS, reducing_gap=3.0)
    bits = [imagehash.phash(small, hash_size=size).hash for size in (8, 16)]
    return np.concatenate([np.packbits(b).view(np.uint64) for b in bits])


class HashCache:
    """The known hashes of the images below a folder.

    Args:
        root: The folder, or its URL.
    """

    def __init__(self, root: Path | str) -> None:
        name = short_hash(f"{_VERSION} {PIL.__version__} {root}")
        self._file = cache_folder() / "perceptual" / f"{name}.parquet"
        self._known = self._read()

    def has(self, hashes: "pd.Series[str]") -> npt.NDArray[np.bool_]:
        """Return which of the contents, named by their SHA-256, are known."""
        return np.asarray(hashes.isin(self._known.index))

    def get(self, hashes: "pd.Series[str]") -> Hashes:
        """Return the hashes of known contents, shape (contents, 5)."""
        return np.asarray(self._known.loc[hashes, _WORDS].to_numpy(dtype=np.uint64))

    def add(self, found: dict[str, Hashes]) -> None:
        """Add hashes by the SHA-256 of their content."""
        new = pd.DataFrame.from_dict(found, orient="index", columns=_WORDS, dtype=np.uint64)
        new = new[~new.index.isin(self._known.index)]
        if len(new):
            self._known = pd.concat([self._known, new])
            cached = self._known.rename_axis("sha256").reset_index()
            write_to_cache(self._file, lambda file: cached.to_parquet(file, index=False))

    def _read(self) -> pd.DataFrame:
        try:
            return pd.read_parquet(self._file).set_index("sha256")[_WORDS]
        except (OSError, ValueError, KeyError):  # absent or damaged: the images are read again
            return pd.DataFrame(columns=_WORDS, dtype=np.uint64)

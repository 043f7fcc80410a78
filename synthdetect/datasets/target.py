"""Unlabelled target images, to which a detector is adapted.

None of them may be in train or val, since an image would then take part in the training in two
roles. They may be in another split; results on that split are then transductive, and the card of
the detector records this.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from synthdetect.datasets.index import ProgressCallback
from synthdetect.datasets.manifest import Manifest
from synthdetect.datasets.schema import DEVELOPMENT_SPLITS
from synthdetect.datasets.selection import SUPPLEMENT
from synthdetect.datasets.unlabelled import ListedFiles, unlabelled
from synthdetect.images.batches import Images
from synthdetect.images.reading import BadImage, probe_image
from synthdetect.system.errors import UserError

SPLIT_PREFIX = "split:"
"""Prefix of a target that is a split of the data and not a path."""


@dataclass(frozen=True)
class Target:
    """Readable unlabelled images.

    Attributes:
        images: The images, in a fixed order.
        hashes: SHA-256 of each image.
        splits: Splits of the data that share images with the target.
        excluded: `path` and `error` of the unreadable images that were left out.
    """

    images: Images
    hashes: tuple[str, ...]
    splits: tuple[str, ...]
    excluded: pd.DataFrame

    def table(self) -> pd.DataFrame:
        """Return one row per image: `path` (its name as listed) and `sha256`."""
        paths = [self.images.name(row) for row in range(len(self.images))]
        return pd.DataFrame({"path": paths, "sha256": list(self.hashes)})

    def digest(self) -> str:
        """Return the SHA-256 of the contents in their order, on which sampling depends."""
        return hashlib.sha256("\n".join(self.hashes).encode()).hexdigest()


class ImageSubset(Images):
    """Some rows of other images."""

    def __init__(self, images: Images, rows: Sequence[int]) -> None:
        self.images = images
        self.rows = np.array(rows, dtype=np.int64)

    def __len__(self) -> int:
        return len(self.rows)

    def name(self, row: int) -> str:
        """The name among all images."""
        return self.images.name(int(self.rows[row]))

    def read(self, row: int) -> bytes:
        """Read the image."""
        return self.images.read(int(self.rows[row]))


def load_target(
    target: str, manifest: Manifest, *, on_bad_image: str, progress: ProgressCallback | None = None
) -> Target:
    """List the images to adapt to, and read each of them once.

    Args:
        target: A folder, an archive or a list (see `unlabelled`), or `split:` and the name of a
            split of the data other than train and val.
        manifest: The data, indexed.
        on_bad_image: `stop` or `exclude`, for unreadable images.
        progress: Called while images are read.

    Raises:
        UserError: If the target does not exist, has an unreadable image, shares images with train,
            val or a supplement, or has fewer than two readable images.
    """
    if target.startswith(SPLIT_PREFIX):
        found = _target_from_split(target, manifest)
    else:
        found = _target_from_files(target, manifest, on_bad_image, progress)
    shared = [split for split in found.splits if split in (*DEVELOPMENT_SPLITS, SUPPLEMENT)]
    if shared:
        raise UserError(
            f"--target {target}: holds images of {' and '.join(shared)} of {manifest.name}. Give "
            "images that are not used for training or validation."
        )
    if len(found.images) < 2:
        raise UserError(
            f"--target {target}: holds fewer than two images that can be read. Give more."
        )
    return found


def _target_from_split(target: str, manifest: Manifest) -> Target:
    part = manifest.split(target.removeprefix(SPLIT_PREFIX))
    if not len(part):
        known = ", ".join(split for split in manifest.splits if split not in DEVELOPMENT_SPLITS)
        raise UserError(
            f"--target {target}: no such split. {manifest.name} has {known or 'none to adapt to'}."
        )
    images = ListedFiles(part.root, part.table["path"].tolist())
    return _make_target(images, part.table["sha256"].tolist(), [], manifest)


def _target_from_files(
    target: str, manifest: Manifest, on_bad_image: str, progress: ProgressCallback | None
) -> Target:
    images = unlabelled(target, option="--target")
    good: list[int] = []
    hashes: list[str] = []
    bad: list[tuple[str, str]] = []
    for row in range(len(images)):
        try:
            hashes.append(probe_image(images.read(row))["sha256"])
            good.append(row)
        except BadImage as error:
            bad.append((images.name(row), str(error)))
        except OSError as error:
            bad.append((images.name(row), error.strerror or str(error)))
        if progress:
            progress(row + 1, len(images))
    if bad and on_bad_image == "stop":
        listed = "\n".join(f"  {name!r}: {error}" for name, error in bad[:10])
        raise UserError(
            f"--target {target}: {len(bad)} of {len(images)} images cannot be read:\n{listed}\n"
            "Repair or remove them, or leave them out with --on-bad-image exclude."
        )
    return _make_target(ImageSubset(images, good), hashes, bad, manifest)


def _make_target(
    images: Images, hashes: list[str], bad: list[tuple[str, str]], manifest: Manifest
) -> Target:
    shared = manifest.with_table(manifest.table[manifest.table["sha256"].isin(hashes)]).splits
    excluded = pd.DataFrame(bad, columns=["path", "error"], dtype=str)
    return Target(images, tuple(hashes), tuple(shared), excluded)

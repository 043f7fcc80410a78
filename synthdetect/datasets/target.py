"""Unlabelled images to adapt a detector to: where they are, and what they share with the data.

None of them may be an image that trains or validates, whose part in choosing the detector would
then be played twice. Images of a further split may be among them: results on that split are then
transductive, and the detector's card says so.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from synthdetect.datasets.folds import LABELLED
from synthdetect.datasets.index import ProgressCallback
from synthdetect.datasets.manifest import Manifest
from synthdetect.datasets.selection import SUPPLEMENT
from synthdetect.datasets.unlabelled import ListedFiles, unlabelled
from synthdetect.images.batches import Images
from synthdetect.images.reading import BadImage, probe_image
from synthdetect.system.errors import UserError

SPLIT = "split:"
"""What stands before the name of a split of the data, in place of a path."""


@dataclass(frozen=True)
class Target:
    """Unlabelled images that can be read.

    Attributes:
        images: in a fixed order; `seen_by` says as which squares.
        hashes: SHA-256 of each.
        splits: of the data that share images with them.
        excluded: `path` and `error` of those that were left out.
    """

    images: Images
    hashes: tuple[str, ...]
    splits: tuple[str, ...]
    excluded: pd.DataFrame

    def table(self) -> pd.DataFrame:
        """A row an image: `path`, as its source calls it, and `sha256`."""
        paths = [self.images.name(row) for row in range(len(self.images))]
        return pd.DataFrame({"path": paths, "sha256": list(self.hashes)})

    def digest(self) -> str:
        """SHA-256 of their contents in their order, by which each is drawn and changed."""
        return hashlib.sha256("\n".join(self.hashes).encode()).hexdigest()


class Chosen(Images):
    """Some of the images of a source."""

    def __init__(self, images: Images, rows: Sequence[int]) -> None:
        self.images = images
        self.rows = np.array(rows, dtype=np.int64)

    def __len__(self) -> int:
        return len(self.rows)

    def name(self, row: int) -> str:
        """What the source calls it."""
        return self.images.name(int(self.rows[row]))

    def read(self, row: int) -> bytes:
        """As the source reads it."""
        return self.images.read(int(self.rows[row]))


def find_target(
    target: str, manifest: Manifest, *, on_bad_image: str, progress: ProgressCallback | None = None
) -> Target:
    """Find the images to adapt to, and read each of them once.

    Args:
        target: a folder, an archive or a list (see `unlabelled`), or `split:` and the name of a
            split of the data that neither trains nor validates.
        manifest: the data, indexed.
        on_bad_image: `stop` or `exclude`, for unreadable images.
        progress: told how many are read.

    Raises:
        UserError: nothing is there, an image is unreadable, fewer than two are left, or some of
            them train or validate.
    """
    if target.startswith(SPLIT):
        found = _split(target, manifest)
    else:
        found = _read(target, manifest, on_bad_image, progress)
    shared = [split for split in found.splits if split in (*LABELLED, SUPPLEMENT)]
    if shared:
        raise UserError(
            f"--target {target}: holds images of {' and '.join(shared)} of {manifest.name}. Give "
            "other images than those that train and validate."
        )
    if len(found.images) < 2:
        raise UserError(f"--target {target}: holds fewer than two images that can be read.")
    return found


def _split(target: str, manifest: Manifest) -> Target:
    part = manifest.split(target.removeprefix(SPLIT))
    if not len(part):
        known = ", ".join(split for split in manifest.splits if split not in LABELLED)
        raise UserError(f"--target {target}: no such split; {manifest.name} has {known or 'none'}.")
    images = ListedFiles(part.root, part.table["path"].tolist())
    return _target(images, part.table["sha256"].tolist(), [], manifest)


def _read(
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
    return _target(Chosen(images, good), hashes, bad, manifest)


def _target(
    images: Images, hashes: list[str], bad: list[tuple[str, str]], manifest: Manifest
) -> Target:
    shared = manifest.with_table(manifest.table[manifest.table["sha256"].isin(hashes)]).splits
    excluded = pd.DataFrame(bad, columns=["path", "error"], dtype=str)
    return Target(images, tuple(hashes), tuple(shared), excluded)

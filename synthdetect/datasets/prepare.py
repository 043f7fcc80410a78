"""Preparation of the training data: from the data options to a checked manifest."""

import hashlib
from dataclasses import dataclass, replace

import pandas as pd

from synthdetect.datasets.index import ProgressCallback, index
from synthdetect.datasets.manifest import Manifest, load
from synthdetect.datasets.options import DataOptions
from synthdetect.datasets.selection import (
    append_supplement,
    capped_without_category,
    merge_supplement_into_train,
    move_val_to_train,
    one_class_categories,
    select,
)
from synthdetect.datasets.splits import check_splits, make_missing_splits
from synthdetect.datasets.target import Target
from synthdetect.system.errors import UserError


@dataclass(frozen=True)
class Prepared:
    """Data that a detector can be trained on.

    Attributes:
        manifest: Indexed, split and checked; narrowed unless it comes from `prepare_whole`.
        excluded: `path` and `error` of the unreadable images that were left out.
        validation_hashes: SHA-256 of the images in the val split that the data came with.
        one_class_categories: Training categories without real or without synthetic images, none of
            which `per_category` keeps.
        target: Unlabelled images to adapt to.
        without_category: How many of the training images without a category `per_category` keeps,
            and how many there are.
    """

    manifest: Manifest
    excluded: pd.DataFrame
    validation_hashes: frozenset[str]
    one_class_categories: tuple[str, ...]
    target: Target | None = None
    without_category: tuple[int, int] = (0, 0)

    def digest(self) -> str:
        """Return the digest of the manifest, or of manifest and target if there is a target."""
        digest = self.manifest.digest()
        if self.target is None:
            return digest
        return hashlib.sha256(f"{digest} {self.target.digest()}".encode()).hexdigest()

    def with_target(self, target: Target) -> "Prepared":
        """Return the data with unlabelled images to adapt to."""
        excluded = pd.concat([self.excluded, target.excluded], ignore_index=True)
        return replace(self, excluded=excluded, target=target)

    def with_splits(self, manifest: Manifest, options: DataOptions, *, seed: int) -> "Prepared":
        """Return the data with other splits, narrowed and checked.

        Raises:
            UserError: If they cannot be trained on.
        """
        manifest = narrow(manifest, options, seed=seed)
        check_splits(manifest)
        return replace(self, manifest=manifest)


def prepare(
    options: DataOptions, *, seed: int, progress: ProgressCallback | None = None
) -> Prepared:
    """Load, index, split, narrow and check the data of one training.

    Args:
        options: The data options.
        seed: Seed of the splits and of the selection.
        progress: Called while images are indexed.

    Raises:
        UserError: If the data cannot be read or trained on.
    """
    whole = _load(options, seed, progress)
    manifest = narrow(whole.manifest, options, seed=seed)
    if options.finetune:
        manifest = move_val_to_train(manifest, options.finetune, seed=seed)
    check_splits(manifest)
    return replace(whole, manifest=manifest)


def prepare_whole(
    options: DataOptions, *, seed: int, progress: ProgressCallback | None = None
) -> Prepared:
    """Load, index, split and check the data of several trainings on splits of their own.

    The train split is not narrowed; `Prepared.with_splits` narrows that of each training. A
    supplement is a split of its own, named `selection.SUPPLEMENT`.

    Raises:
        UserError: If the data cannot be read or trained on.
    """
    whole = _load(options, seed, progress)
    check_splits(whole.manifest)
    return whole


def narrow(manifest: Manifest, options: DataOptions, *, seed: int) -> Manifest:
    """Narrow the train split to the selected images, and add the supplement to it.

    Raises:
        UserError: If no image is left, or a selected generator or category does not exist.
    """
    manifest = select(manifest, options, seed=seed)
    return merge_supplement_into_train(manifest) if options.supplement else manifest


def _load(options: DataOptions, seed: int, progress: ProgressCallback | None) -> Prepared:
    """Load, index and split all data, without narrowing or checking them."""
    manifest, excluded = index_readable(load(options.data), options.on_bad_image, progress)
    validation_hashes = frozenset(manifest.split("val").table["sha256"])
    manifest = make_missing_splits(
        manifest, seed=seed, val_share=options.val_share, test_share=options.test_share
    )
    one_class = one_class_categories(manifest) if options.per_category else ()
    without_category = (0, 0)
    if options.per_category and not options.categories:
        without_category = capped_without_category(manifest, options.per_category)
    if options.supplement:
        extra, bad = index_readable(
            load(options.supplement, option="--supplement"), options.on_bad_image, progress
        )
        manifest = append_supplement(manifest, extra)
        excluded = pd.concat([excluded, bad], ignore_index=True)
    return Prepared(
        manifest, excluded, validation_hashes, one_class, without_category=without_category
    )


def index_readable(
    manifest: Manifest, on_bad_image: str, progress: ProgressCallback | None
) -> tuple[Manifest, pd.DataFrame]:
    """Index the images of a manifest and leave out those that cannot be read.

    Args:
        manifest: The manifest.
        on_bad_image: `stop` or `exclude`, for unreadable images.
        progress: Called while images are indexed.

    Returns:
        The manifest of the readable images, and `path` and `error` of the others.

    Raises:
        UserError: If an image cannot be read and `on_bad_image` is `stop`, or if none can be read.
    """
    manifest = index(manifest, progress=progress)
    bad = manifest.table["error"] != ""
    if bad.all() or (bad.any() and on_bad_image == "stop"):
        listed = "\n".join(
            f"  {manifest.file(path)}: {error}"
            for path, error in manifest.table.loc[bad, ["path", "error"]].head(10).to_numpy()
        )
        raise UserError(
            f"{manifest.name}: {int(bad.sum())} of {len(manifest)} images cannot be read:\n"
            f"{listed}\nRepair or remove them, or leave them out with --on-bad-image exclude."
        )
    excluded = manifest.table.loc[bad, ["path", "error"]].reset_index(drop=True)
    return manifest.with_table(manifest.table[~bad].drop(columns="error")), excluded

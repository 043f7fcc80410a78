"""From the data options to a manifest that is fit to train on."""

import hashlib
from dataclasses import dataclass, replace

import pandas as pd

from synthdetect.datasets.index import ProgressCallback, index
from synthdetect.datasets.manifest import Manifest, load
from synthdetect.datasets.options import DataOptions
from synthdetect.datasets.selection import (
    add_supplement,
    move_to_train,
    one_sided,
    select,
    supplement,
)
from synthdetect.datasets.splits import check, split
from synthdetect.datasets.target import Target
from synthdetect.system.errors import UserError


@dataclass(frozen=True)
class Prepared:
    """Data that can be trained on.

    Attributes:
        manifest: indexed, split, narrowed (but for `prepare_whole`) and checked.
        excluded: `path` and `error` of the unreadable images that were left out.
        validation: hashes of the images that the data themselves call validation.
        one_sided: categories of one class, of which `per_category` leaves nothing.
        target: unlabelled images to adapt to.
    """

    manifest: Manifest
    excluded: pd.DataFrame
    validation: frozenset[str]
    one_sided: tuple[str, ...]
    target: Target | None = None

    def digest(self) -> str:
        """The manifest's digest; with a target, one of both."""
        digest = self.manifest.digest()
        if self.target is None:
            return digest
        return hashlib.sha256(f"{digest} {self.target.digest()}".encode()).hexdigest()

    def adapting_to(self, target: Target) -> "Prepared":
        """The same data with images to adapt to."""
        excluded = pd.concat([self.excluded, target.excluded], ignore_index=True)
        return replace(self, excluded=excluded, target=target)

    def trained_on(self, manifest: Manifest, options: DataOptions, *, seed: int) -> "Prepared":
        """The data of one training of several, on splits of the whole that are its own.

        Raises:
            UserError: they cannot be trained on.
        """
        manifest = narrow(manifest, options, seed=seed)
        check(manifest)
        return replace(self, manifest=manifest)


def prepare(
    options: DataOptions, *, seed: int, progress: ProgressCallback | None = None
) -> Prepared:
    """Load, index, split, narrow and check the data of a training.

    Raises:
        UserError: whatever is wrong with them, before anything is trained.
    """
    whole = _read(options, seed, progress)
    manifest = narrow(whole.manifest, options, seed=seed)
    if options.finetune:
        manifest = move_to_train(manifest, options.finetune, seed=seed)
    check(manifest)
    return replace(whole, manifest=manifest)


def prepare_whole(
    options: DataOptions, *, seed: int, progress: ProgressCallback | None = None
) -> Prepared:
    """The data of which several trainings are dealt their own splits, each to be narrowed then.

    A supplement is a split of its own, `synthdetect.datasets.selection.SUPPLEMENT`.

    Raises:
        UserError: whatever is wrong with them, before anything is trained.
    """
    whole = _read(options, seed, progress)
    check(whole.manifest)
    return whole


def narrow(manifest: Manifest, options: DataOptions, *, seed: int) -> Manifest:
    """Narrow the train split to what is asked for, and add the supplement to it.

    Raises:
        UserError: nothing is left, or there is no such generator or category.
    """
    manifest = select(manifest, options, seed=seed)
    return add_supplement(manifest) if options.supplement else manifest


def _read(options: DataOptions, seed: int, progress: ProgressCallback | None) -> Prepared:
    """Everything there is, with splits, not narrowed."""
    manifest, excluded = readable(load(options.data), options.on_bad_image, progress)
    validation = frozenset(manifest.split("val").table["sha256"])
    manifest = split(
        manifest, seed=seed, val_share=options.val_share, test_share=options.test_share
    )
    lone = one_sided(manifest) if options.per_category else ()
    if options.supplement:
        extra, bad = readable(
            load(options.supplement, option="supplement"), options.on_bad_image, progress
        )
        manifest = supplement(manifest, extra)
        excluded = pd.concat([excluded, bad], ignore_index=True)
    return Prepared(manifest, excluded, validation, lone)


def readable(
    manifest: Manifest, on_bad_image: str, progress: ProgressCallback | None
) -> tuple[Manifest, pd.DataFrame]:
    """Index a manifest's images; those that cannot be read stop it, or are left out.

    Returns:
        The manifest of the readable ones, and `path` and `error` of the others.

    Raises:
        UserError: some cannot be read, and `on_bad_image` is `stop`; or none can.
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

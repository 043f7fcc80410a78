"""From the data options to a manifest that is fit to train on."""

import hashlib
from dataclasses import dataclass

import pandas as pd

from synthdetect.config import DataOptions
from synthdetect.data.index import Progress, index
from synthdetect.data.manifest import Manifest, load
from synthdetect.data.select import move_to_train, select, supplement
from synthdetect.data.splits import check, split
from synthdetect.data.target import Target
from synthdetect.errors import UserError


@dataclass(frozen=True)
class Prepared:
    """Data that can be trained on.

    Attributes:
        manifest: indexed, split, selected and checked.
        excluded: `path` and `error` of the unreadable images that were left out.
        target: unlabelled images to adapt to.
    """

    manifest: Manifest
    excluded: pd.DataFrame
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
        return Prepared(self.manifest, excluded, target)


def prepare(options: DataOptions, *, seed: int, progress: Progress | None = None) -> Prepared:
    """Load, index, split, select and check the data.

    Raises:
        UserError: whatever is wrong with them, before anything is trained.
    """
    manifest, excluded = readable(load(options.data), options.on_bad_image, progress)
    manifest = split(
        manifest, seed=seed, val_share=options.val_share, test_share=options.test_share
    )
    manifest = select(manifest, options, seed=seed)
    if options.finetune:
        manifest = move_to_train(manifest, options.finetune, seed=seed)
    if options.supplement:
        extra, bad = readable(
            load(options.supplement, option="supplement"), options.on_bad_image, progress
        )
        manifest = supplement(manifest, extra)
        excluded = pd.concat([excluded, bad], ignore_index=True)
    check(manifest)
    return Prepared(manifest, excluded)


def readable(
    manifest: Manifest, on_bad_image: str, progress: Progress | None
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

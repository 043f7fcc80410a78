"""Folds of cross-validation over the development images: those of the train and val splits."""

from pathlib import Path

import numpy as np
import pandas as pd

from synthdetect.datasets.labels import SYNTHETIC
from synthdetect.datasets.manifest import Manifest
from synthdetect.datasets.options import FoldOptions
from synthdetect.datasets.schema import DEVELOPMENT_SPLITS
from synthdetect.datasets.splits import assign_groups, group_codes
from synthdetect.system.errors import UserError


def assign_folds(manifest: Manifest, options: FoldOptions, *, seed: int) -> pd.DataFrame:
    """Assign the images of train and val to folds.

    With `group_by=generator`, there is one fold for each generator, and the sources are assigned to
    as many parts. Fold g validates on the real images and the images of generator g in part g. It
    trains on the real images and the images of the other generators in the other parts. Neither a
    generator nor a photograph is thus in both train and val, but some images are in neither.

    Returns:
        One row per image: `path`, `fold` (its part, from 1) and `held_out` (the generator that this
        fold leaves out; empty without `group_by=generator`).

    Raises:
        UserError: If there are fewer groups than folds, or fewer than two generators to leave out.
    """
    table = _development_images(manifest)
    held_out = [""] * options.folds
    if options.group_by == "generator":
        held_out = sorted(set(table.loc[table["label"] == SYNTHETIC, "generator"]) - {""})
        if len(held_out) < 2:
            raise UserError(
                f"--group-by generator: the train and val splits of {manifest.name} name "
                f"{len(held_out)} generator(s), but leaving one out needs two."
            )
    count = len(held_out)
    by_category = options.stratify == "category"
    part = assign_groups(table, [1 / count] * count, seed=seed, by_category=by_category)
    if len(np.unique(part)) < count:
        raise UserError(
            f"--folds: {manifest.name} has too few sources for {count} folds. Give fewer folds."
        )
    return pd.DataFrame(
        {"path": table["path"], "fold": part + 1, "held_out": np.array(held_out)[part]}
    )


def fold_manifest(manifest: Manifest, folds: pd.DataFrame, fold: int) -> Manifest:
    """Return the manifest in which val is one fold and train the others.

    Args:
        manifest: The manifest whose images were assigned.
        folds: As returned by `assign_folds`.
        fold: Number of the fold, from 1.
    """
    table = manifest.table.copy()
    development = table["split"].isin(DEVELOPMENT_SPLITS)
    by_path = folds.set_index("path")
    part = table["path"].map(by_path["fold"])
    held_out = by_path.loc[by_path["fold"] == fold, "held_out"].iloc[0]
    table.loc[development, "split"] = np.where(part[development] == fold, "val", "train")
    if held_out:
        synthetic = development & (table["label"] == SYNTHETIC)
        in_fold = part == fold
        unused = synthetic & (in_fold == (table["generator"] != held_out))
        table = table[~unused]
    return manifest.with_table(table)


def merge_val_into_train(manifest: Manifest) -> Manifest:
    """Move all images of the val split to the train split."""
    table = manifest.table
    return manifest.with_table(table.assign(split=table["split"].replace("val", "train")))


def read_folds(path: Path, manifest: Manifest) -> pd.DataFrame:
    """Read an assignment of folds that an earlier cross-validation wrote.

    Raises:
        UserError: If the file cannot be read, is not about the same images, has only one fold,
            assigns a source to several folds, or has a fold without real or synthetic images.
    """
    try:
        folds = pd.read_csv(path, keep_default_na=False, dtype={"path": str, "held_out": str})
        folds = folds[["path", "fold", "held_out"]].astype({"fold": "int64"})
    except (OSError, ValueError, KeyError) as error:
        raise UserError(f"--folds-from: {path} is no assignment of folds: {error}") from error
    images = _development_images(manifest)
    expected, assigned = set(images["path"]), set(folds["path"])
    if expected != assigned or folds["path"].duplicated().any():
        raise UserError(
            f"--folds-from: {path} assigns other images than the train and val splits of "
            f"{manifest.name} have: {len(expected - assigned)} are missing, "
            f"{len(assigned - expected)} are unknown."
        )
    fold = images["path"].map(folds.set_index("path")["fold"])
    if fold.nunique() < 2:
        raise UserError(f"--folds-from: {path} has one fold only. Give at least two.")
    if fold.groupby(group_codes(images)).nunique().max() > 1:
        raise UserError(
            f"--folds-from: {path} assigns images of one source to several folds. Keep the images "
            "of a source together."
        )
    classes = images["label"].groupby(fold).nunique()
    if classes.min() < 2:
        raise UserError(
            f"--folds-from: fold {classes.idxmin()} of {path} holds one class only. Every fold "
            "needs both."
        )
    return folds


def _development_images(manifest: Manifest) -> pd.DataFrame:
    table = manifest.table
    return table[table["split"].isin(DEVELOPMENT_SPLITS)].reset_index(drop=True)

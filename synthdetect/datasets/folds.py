"""Folds of the labelled images, for cross-validation and for whoever compares against it."""

from pathlib import Path

import numpy as np
import pandas as pd

from synthdetect.datasets.labels import SYNTHETIC
from synthdetect.datasets.manifest import Manifest
from synthdetect.datasets.options import FoldOptions
from synthdetect.datasets.splits import assign_groups, group_codes
from synthdetect.system.errors import UserError

LABELLED = ("train", "val")
"""The splits whose images are dealt; every other one evaluates each fold's model."""


def assign(manifest: Manifest, options: FoldOptions, *, seed: int) -> pd.DataFrame:
    """Deal the labelled images into folds.

    With `group_by=generator` there is a fold a generator, and the sources are dealt into as many
    parts: fold g validates on the real images and generator g's of part g, and trains on the real
    images and the other generators' of the other parts. So neither a generator nor a photograph is
    on both sides, at the price of images that a fold uses for neither.

    Returns:
        A row a labelled image: `path`, `fold` (the part it is in, from 1) and `held_out` (the
        generator that this fold leaves out; empty for k folds).

    Raises:
        UserError: fewer groups than folds, or fewer than two generators.
    """
    table = _labelled(manifest)
    held_out = [""] * options.folds
    if options.group_by == "generator":
        held_out = sorted(set(table.loc[table["label"] == SYNTHETIC, "generator"]) - {""})
        if len(held_out) < 2:
            raise UserError(
                f"--group-by generator: {manifest.name} names {len(held_out)} generator(s) among "
                "its labelled images; leaving one out needs two."
            )
    count = len(held_out)
    by_category = options.stratify == "category"
    part = assign_groups(table, [1 / count] * count, seed=seed, by_category=by_category)
    if len(np.unique(part)) < count:
        raise UserError(f"--folds: {manifest.name} has too few sources for {count} folds.")
    return pd.DataFrame(
        {"path": table["path"], "fold": part + 1, "held_out": np.array(held_out)[part]}
    )


def fold_manifest(manifest: Manifest, folds: pd.DataFrame, fold: int) -> Manifest:
    """The manifest in which one fold is val and the others are train."""
    table = manifest.table.copy()
    labelled = table["split"].isin(LABELLED)
    by_path = folds.set_index("path")
    part = table["path"].map(by_path["fold"])
    held_out = by_path.loc[by_path["fold"] == fold, "held_out"].iloc[0]
    table.loc[labelled, "split"] = np.where(part[labelled] == fold, "val", "train")
    if held_out:
        synthetic = labelled & (table["label"] == SYNTHETIC)
        in_fold = part == fold
        unused = synthetic & (in_fold == (table["generator"] != held_out))
        table = table[~unused]
    return manifest.with_table(table)


def pooled(manifest: Manifest) -> Manifest:
    """The manifest in which every labelled image trains."""
    table = manifest.table
    return manifest.with_table(table.assign(split=table["split"].replace("val", "train")))


def read(path: Path, manifest: Manifest) -> pd.DataFrame:
    """Read an assignment that an earlier cross-validation wrote.

    Raises:
        UserError: unreadable, not of the same labelled images, of one fold, with a photograph in
            several or with a class that a fold has nothing of.
    """
    try:
        folds = pd.read_csv(path, keep_default_na=False, dtype={"path": str, "held_out": str})
        folds = folds[["path", "fold", "held_out"]].astype({"fold": "int64"})
    except (OSError, ValueError, KeyError) as error:
        raise UserError(f"--folds-from: {path} is no assignment of folds: {error}") from error
    labelled = _labelled(manifest)
    here, there = set(labelled["path"]), set(folds["path"])
    if here != there or folds["path"].duplicated().any():
        raise UserError(
            f"--folds-from: {path} deals other images than {manifest.name} has: "
            f"{len(here - there)} are missing, {len(there - here)} are unknown."
        )
    fold = labelled["path"].map(folds.set_index("path")["fold"])
    if fold.nunique() < 2:
        raise UserError(f"--folds-from: {path} has one fold only; give at least two.")
    if fold.groupby(group_codes(labelled)).nunique().max() > 1:
        raise UserError(
            f"--folds-from: {path} deals images of one source into several folds. Keep the images "
            "of a source together."
        )
    classes = labelled["label"].groupby(fold).nunique()
    if classes.min() < 2:
        raise UserError(
            f"--folds-from: fold {classes.idxmin()} of {path} holds one class only; give each both."
        )
    return folds


def _labelled(manifest: Manifest) -> pd.DataFrame:
    table = manifest.table
    return table[table["split"].isin(LABELLED)].reset_index(drop=True)

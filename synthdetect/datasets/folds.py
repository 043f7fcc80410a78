"""Folds of cross-validation over the development images: those of the train and val splits."""

from pathlib import Path

import numpy as np
import pandas as pd

from synthdetect.datasets.labels import SYNTHETIC
from synthdetect.datasets.manifest import Manifest
from synthdetect.datasets.options import FoldOptions
from synthdetect.datasets.schema import DEVELOPMENT_SPLITS, HELD_OUT
from synthdetect.datasets.splits import assign_groups, group_codes, require_both_classes
from synthdetect.system.errors import UserError


def assign_folds(
    manifest: Manifest, options: FoldOptions, *, seed: int, val_share: float
) -> pd.DataFrame:
    """Assign the images of train and val to folds.

    With `group_by=generator`, there is one fold for each generator, and the sources are assigned
    to as many parts. Fold g holds out the real images and the images of generator g in part g. It
    learns from the real images and the images of the other generators in the other parts, where a
    share of the sources validates and the others train. Neither the held-out generator nor a
    held-out photograph thus takes part in training or in a choice, but some images are unused.

    Args:
        manifest: The manifest.
        options: How the folds are made.
        seed: Seed of the assignment.
        val_share: Share of the images that validate in a fold that leaves a generator out.

    Returns:
        One row per image: `path`, `fold` (its part, from 1) and `held_out` (the generator that this
        fold leaves out; empty without `group_by=generator`). With `group_by=generator`, also `val`:
        1 if the image validates in the folds that learn from its part, 0 if it trains.

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
    folds = pd.DataFrame(
        {"path": table["path"], "fold": part + 1, "held_out": np.array(held_out)[part]}
    )
    return _with_validation(folds, manifest, seed=seed, val_share=val_share)


def fold_manifest(manifest: Manifest, folds: pd.DataFrame, fold: int) -> Manifest:
    """Return the manifest of one fold.

    Its val split is the fold and its train split the others. If the fold leaves a generator out,
    the split `HELD_OUT` is the fold, and train and val are the images of the other folds.

    Args:
        manifest: The manifest whose images were assigned.
        folds: As returned by `assign_folds`.
        fold: Number of the fold, from 1.

    Raises:
        UserError: If the fold leaves a generator out and its split `HELD_OUT` lacks a class, or the
            manifest has a split of that name.
    """
    table = manifest.table.copy()
    development = table["split"].isin(DEVELOPMENT_SPLITS)
    by_path = folds.set_index("path")
    in_fold = table["path"].map(by_path["fold"]) == fold
    held_out = by_path.loc[by_path["fold"] == fold, "held_out"].iloc[0]
    if not held_out:
        table.loc[development, "split"] = np.where(in_fold[development], "val", "train")
        return manifest.with_table(table)
    if HELD_OUT in manifest.splits:
        raise UserError(
            f"--group-by generator: {manifest.name} already has a split {HELD_OUT!r}. Rename it."
        )
    validates = table["path"].map(by_path["val"]) == 1
    split = np.where(in_fold, HELD_OUT, np.where(validates, "val", "train"))
    table.loc[development, "split"] = split[development]
    synthetic = development & (table["label"] == SYNTHETIC)
    unused = synthetic & (in_fold == (table["generator"] != held_out))
    found = manifest.with_table(table[~unused])
    require_both_classes(found, (HELD_OUT,))
    return found


def holds_generators_out(folds: pd.DataFrame) -> bool:
    """Return whether the folds leave generators out, rather than being folds of photographs."""
    return bool((folds["held_out"] != "").any())


def merge_val_into_train(manifest: Manifest) -> Manifest:
    """Move all images of the val split to the train split."""
    table = manifest.table
    return manifest.with_table(table.assign(split=table["split"].replace("val", "train")))


def read_folds(path: Path, manifest: Manifest, *, seed: int, val_share: float) -> pd.DataFrame:
    """Read an assignment of folds that an earlier cross-validation wrote.

    Args:
        path: The file.
        manifest: The manifest whose images were assigned.
        seed: Seed of the column `val` of folds that leave generators out, if the file lacks it, as
            those of older versions do.
        val_share: As for `assign_folds`, likewise.

    Returns:
        As `assign_folds`.

    Raises:
        UserError: If the file cannot be read, is not about the same images, has only one fold,
            assigns a source to several folds or to both values of `val`, or has a fold without real
            or synthetic images, or of which only some images leave a generator out.
    """
    columns = ["path", "fold", "held_out"]
    try:
        folds = pd.read_csv(path, keep_default_na=False, dtype={"path": str, "held_out": str})
        columns += ["val"] if "val" in folds else []
        folds = folds[columns].astype({name: "int64" for name in ("fold", *columns[3:])})
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
    by_path = folds.set_index("path").loc[images["path"]].reset_index()
    if by_path["fold"].nunique() < 2:
        raise UserError(f"--folds-from: {path} has one fold only. Give at least two.")
    if by_path["fold"].min() < 0:
        raise UserError(f"--folds-from: {path} has a negative number of a fold. Count from 1.")
    sources = by_path.groupby(group_codes(images))
    if sources["fold"].nunique().max() > 1:
        raise UserError(
            f"--folds-from: {path} assigns images of one source to several folds. Keep the images "
            "of a source together."
        )
    classes = images["label"].groupby(by_path["fold"]).nunique()
    if classes.min() < 2:
        raise UserError(
            f"--folds-from: fold {classes.idxmin()} of {path} holds one class only. Every fold "
            "needs both."
        )
    generators = by_path[["fold", "held_out"]].drop_duplicates()
    one_each = generators["fold"].is_unique
    if not one_each or generators["held_out"].eq("").nunique() > 1:
        raise UserError(
            f"--folds-from: {path} does not name one held_out generator for each fold. Name one "
            "for every fold, or none."
        )
    if "val" in by_path and sources["val"].nunique().max() > 1:
        raise UserError(
            f"--folds-from: {path} assigns images of one source to train and to val. Keep the "
            "images of a source together."
        )
    return _with_validation(folds, manifest, seed=seed, val_share=val_share)


def _with_validation(
    folds: pd.DataFrame, manifest: Manifest, *, seed: int, val_share: float
) -> pd.DataFrame:
    """Add the column `val` to folds that leave generators out, if it is missing."""
    if "val" in folds or not holds_generators_out(folds):
        return folds
    table = _development_images(manifest)
    part = table["path"].map(folds.set_index("path")["fold"])
    # Every fold learns from whole parts, so each part is stratified, by generator too.
    strata = table.assign(category=part.astype(str) + " " + table["generator"])
    shares = (1 - val_share, val_share)
    validates = assign_groups(strata, shares, seed=seed, by_category=True)
    return folds.assign(val=folds["path"].map(pd.Series(validates, table["path"])))


def _development_images(manifest: Manifest) -> pd.DataFrame:
    table = manifest.table
    return table[table["split"].isin(DEVELOPMENT_SPLITS)].reset_index(drop=True)

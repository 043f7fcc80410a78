"""Selection of the training images.

Selecting changes the train split only. Validation and test splits stay whole, so that detectors
trained on narrow and on diverse data are compared on the same images.
"""

import numpy as np
import pandas as pd

from synthdetect.datasets.labels import REAL, SYNTHETIC
from synthdetect.datasets.manifest import Manifest
from synthdetect.datasets.options import DataOptions
from synthdetect.datasets.splits import group_codes
from synthdetect.system.errors import UserError

SUPPLEMENT = "supplement"
"""The split of the images of a supplement until they are merged into train."""


def select(manifest: Manifest, selection: DataOptions, *, seed: int) -> Manifest:
    """Narrow the train split to the selected images.

    Raises:
        UserError: If the train split lacks a selected generator or category, or if `per_category`
            is set and no category has both classes.
    """
    table = manifest.table
    training = table["split"] == "train"
    train = table[training]
    if selection.generators:
        _require_known(manifest, "--generators", selection.generators, train["generator"])
        chosen = train["generator"].isin(selection.generators) | (train["label"] != SYNTHETIC)
        train = train[chosen]
    if selection.categories:
        _require_known(manifest, "--categories", selection.categories, train["category"])
        train = train[train["category"].isin(selection.categories)]
    rng = np.random.default_rng(seed)
    if selection.per_category:
        train = _balance_categories(train, selection.per_category, rng)
        if train.empty:
            raise UserError(
                f"--per-category: no category of the train split of {manifest.name} has both "
                "classes, so no image would be left. Fill the category column, or omit the option."
            )
    if selection.max_images and len(train) > selection.max_images:
        train = _draw_per_label(train, selection.max_images, rng)
    kept = ~training.to_numpy()
    kept[train.index] = True
    return manifest.with_table(table[kept])


def one_class_categories(manifest: Manifest) -> tuple[str, ...]:
    """Return the categories whose training images are all real or all synthetic."""
    train = manifest.split("train").table
    classes = train.groupby("category")["label"].nunique()
    return tuple(sorted(classes[classes < 2].index))


def capped_without_category(manifest: Manifest, per_category: int) -> tuple[int, int]:
    """Count the training images without a category, which `per_category` takes for one category.

    Returns:
        The number that `per_category` keeps, and the number without it.
    """
    train = manifest.split("train").table
    labels = train.loc[train["category"] == "", "label"]
    fewer = min(int((labels == label).sum()) for label in (REAL, SYNTHETIC))
    return 2 * min(fewer, per_category // 2), len(labels)


def append_supplement(manifest: Manifest, extra: Manifest) -> Manifest:
    """Append all images of another manifest, with absolute paths, as the split `SUPPLEMENT`.

    Raises:
        UserError: If the first manifest has a split of this name.
    """
    if SUPPLEMENT in manifest.splits:
        raise UserError(
            f"--supplement: {manifest.name} already has a split {SUPPLEMENT!r}. Rename it."
        )
    added = extra.table.copy()
    added["path"] = [extra.file(path) for path in added["path"]]
    added["split"] = SUPPLEMENT
    table = pd.concat([manifest.table, added], ignore_index=True)
    for column in table.columns[table.isna().any()]:
        table[column] = table[column].astype(object).fillna("")
    return manifest.with_table(table)


def merge_supplement_into_train(manifest: Manifest) -> Manifest:
    """Move the images of the supplement to the train split."""
    table = manifest.table
    return manifest.with_table(table.assign(split=table["split"].replace(SUPPLEMENT, "train")))


def move_val_to_train(manifest: Manifest, amount: float, *, seed: int) -> Manifest:
    """Move random sources from the val split to the train split.

    Args:
        manifest: A manifest with train and val splits.
        amount: Largest number of images to move if 1 or more, else their share of val.
        seed: Seed of the choice.

    Raises:
        UserError: If no image would be left in val.
    """
    table = manifest.table.copy()
    val = np.flatnonzero(table["split"] == "val")
    number = int(amount) if amount >= 1 else round(amount * len(val))
    if number >= len(val):
        raise UserError(
            f"--finetune: {number} of the {len(val)} validation images of {manifest.name} cannot "
            "be moved to the train split, since some must stay in val. Give a smaller number or "
            "share."
        )
    groups = group_codes(table.iloc[val])
    order = np.random.default_rng(seed).permutation(int(groups.max()) + 1)
    sizes = np.bincount(groups)[order]
    moved = order[np.cumsum(sizes) <= number]
    table.loc[val[np.isin(groups, moved)], "split"] = "train"
    return manifest.with_table(table)


def _balance_categories(
    train: pd.DataFrame, per_category: int, rng: np.random.Generator
) -> pd.DataFrame:
    """Draw at most `per_category` images of each category, as many real as synthetic."""
    # Integer codes, since shuffling a million strings takes seconds.
    codes = {"category": pd.factorize(train["category"])[0], "label": train["label"].to_numpy()}
    order = rng.permutation(len(train))
    shuffled = pd.DataFrame(codes).iloc[order]
    sizes = shuffled.groupby(["category", "label"]).size().unstack(fill_value=0)
    quota = sizes.min(axis=1).clip(upper=per_category // 2)
    rank = shuffled.groupby(["category", "label"]).cumcount()
    return train.iloc[np.sort(order[rank < shuffled["category"].map(quota)])]


def _draw_per_label(train: pd.DataFrame, number: int, rng: np.random.Generator) -> pd.DataFrame:
    """Draw a number of images, with the classes in the same proportion."""
    order = rng.permutation(len(train))
    shuffled = train["label"].reset_index(drop=True).iloc[order]
    rank = shuffled.groupby(shuffled).cumcount() + 0.5
    relative = rank / shuffled.groupby(shuffled).transform("size")
    return train.iloc[np.sort(relative.sort_values(kind="stable").index[:number])]


def _require_known(
    manifest: Manifest, option: str, names: tuple[str, ...], column: "pd.Series[str]"
) -> None:
    present = sorted(set(column.unique()) - {""})
    unknown = sorted(set(names) - set(present))
    if unknown:
        raise UserError(
            f"{option}: {', '.join(unknown)} not in the train split of {manifest.name}. "
            f"Found: {', '.join(present) or 'none'}."
        )

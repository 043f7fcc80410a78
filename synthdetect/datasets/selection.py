"""Choosing the training images: what "narrow" and "diverse" data mean is configuration.

Everything here changes the train split only. Validation and test stay whole, so that a narrow
choice is judged on the same images as a broad one.
"""

from typing import Protocol

import numpy as np
import pandas as pd

from synthdetect.datasets.labels import SYNTHETIC
from synthdetect.datasets.manifest import Manifest
from synthdetect.datasets.splits import group_codes
from synthdetect.system.errors import UserError

SUPPLEMENT = "supplement"
"""The split of a supplement's images, until they are added to train."""


class Selection(Protocol):
    """The part of a configuration that this file reads."""

    @property
    def generators(self) -> tuple[str, ...]: ...
    @property
    def categories(self) -> tuple[str, ...]: ...
    @property
    def per_category(self) -> int: ...
    @property
    def max_images(self) -> int: ...


def select(manifest: Manifest, selection: Selection, *, seed: int) -> Manifest:
    """Narrow the train split to what the selection asks for.

    Raises:
        UserError: a generator or category that the train split does not have, or no category with
            both classes for `per_category`.
    """
    table = manifest.table
    training = table["split"] == "train"
    train = table[training]
    if selection.generators:
        _known(manifest, "generators", selection.generators, train["generator"])
        chosen = train["generator"].isin(selection.generators) | (train["label"] != SYNTHETIC)
        train = train[chosen]
    if selection.categories:
        _known(manifest, "categories", selection.categories, train["category"])
        train = train[train["category"].isin(selection.categories)]
    rng = np.random.default_rng(seed)
    if selection.per_category:
        train = _balanced(train, selection.per_category, rng)
        if train.empty:
            raise UserError(
                f"--per-category: no category of the train split of {manifest.name} has both "
                "classes, so it would leave nothing. Fill the category column, or leave it out."
            )
    if selection.max_images and len(train) > selection.max_images:
        train = _share_per_label(train, selection.max_images, rng)
    kept = ~training.to_numpy()
    kept[train.index] = True
    return manifest.with_table(table[kept])


def one_sided(manifest: Manifest) -> tuple[str, ...]:
    """The categories of which there are only real or only synthetic images to train on."""
    train = manifest.split("train").table
    classes = train.groupby("category")["label"].nunique()
    return tuple(sorted(classes[classes < 2].index))


def supplement(manifest: Manifest, extra: Manifest) -> Manifest:
    """Add all images of another manifest, with absolute paths, as the split `SUPPLEMENT`.

    Raises:
        UserError: the first has a split of this name.
    """
    if SUPPLEMENT in manifest.splits:
        raise UserError(
            f"supplement: {manifest.name} has a split called {SUPPLEMENT!r} itself. Rename it."
        )
    added = extra.table.copy()
    added["path"] = [str(extra.file(path)) for path in added["path"]]
    added["split"] = SUPPLEMENT
    table = pd.concat([manifest.table, added], ignore_index=True)
    for column in table.columns[table.isna().any()]:
        table[column] = table[column].astype(object).fillna("")
    return manifest.with_table(table)


def add_supplement(manifest: Manifest) -> Manifest:
    """Have the supplement's images train."""
    table = manifest.table
    return manifest.with_table(table.assign(split=table["split"].replace(SUPPLEMENT, "train")))


def move_to_train(manifest: Manifest, amount: float, *, seed: int) -> Manifest:
    """Move a random part of val to train, whole sources only; the rest of val evaluates.

    Args:
        manifest: with train and val splits.
        amount: 1 or more is a number of images, less is a share of val; the last source that
            would exceed it stays.
        seed: of the choice.

    Raises:
        UserError: val has no more images than would be moved.
    """
    table = manifest.table.copy()
    val = np.flatnonzero(table["split"] == "val")
    number = int(amount) if amount >= 1 else round(amount * len(val))
    if number >= len(val):
        raise UserError(
            f"finetune: {number} of the {len(val)} validation images of {manifest.name} cannot be "
            "moved to training; some must stay to validate. Give a smaller number or a share."
        )
    groups = group_codes(table.iloc[val])
    order = np.random.default_rng(seed).permutation(int(groups.max()) + 1)
    sizes = np.bincount(groups)[order]
    moved = order[np.cumsum(sizes) <= number]
    table.loc[val[np.isin(groups, moved)], "split"] = "train"
    return manifest.with_table(table)


def _balanced(train: pd.DataFrame, per_category: int, rng: np.random.Generator) -> pd.DataFrame:
    """At most `per_category` images a category, as many real as synthetic."""
    # Of codes, since moving a million texts about takes seconds.
    codes = {"category": pd.factorize(train["category"])[0], "label": train["label"].to_numpy()}
    order = rng.permutation(len(train))
    shuffled = pd.DataFrame(codes).iloc[order]
    sizes = shuffled.groupby(["category", "label"]).size().unstack(fill_value=0)
    quota = sizes.min(axis=1).clip(upper=per_category // 2)
    rank = shuffled.groupby(["category", "label"]).cumcount()
    return train.iloc[np.sort(order[rank < shuffled["category"].map(quota)])]


def _share_per_label(train: pd.DataFrame, number: int, rng: np.random.Generator) -> pd.DataFrame:
    """A random `number` of images with the classes in proportion."""
    order = rng.permutation(len(train))
    shuffled = train["label"].reset_index(drop=True).iloc[order]
    rank = shuffled.groupby(shuffled).cumcount() + 0.5
    relative = rank / shuffled.groupby(shuffled).transform("size")
    return train.iloc[np.sort(relative.sort_values(kind="stable").index[:number])]


def _known(
    manifest: Manifest, option: str, asked: tuple[str, ...], column: "pd.Series[str]"
) -> None:
    present = sorted(set(column.unique()) - {""})
    unknown = sorted(set(asked) - set(present))
    if unknown:
        raise UserError(
            f"{option}: {', '.join(unknown)} not in the train split of {manifest.name}. "
            f"Found: {', '.join(present) or 'none'}."
        )

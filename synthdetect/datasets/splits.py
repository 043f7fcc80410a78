"""Train, val and test splits that keep all images of a source together.

A photograph and its regenerations share content, and so do copies of a file. All images that are
linked by a `source_id` or by equal content form a group, and a group is never divided.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from synthdetect.datasets.labels import REAL, SYNTHETIC
from synthdetect.datasets.manifest import Manifest
from synthdetect.datasets.schema import DEVELOPMENT_SPLITS
from synthdetect.system.errors import UserError

Codes = npt.NDArray[np.int64]


def group_codes(table: pd.DataFrame) -> Codes:
    """Number the groups of images that must stay together.

    Two rows are in one group if they share a `source_id` or a `sha256`, directly or through other
    rows. Empty values link nothing.

    Returns:
        Group of each row, shape (rows,), from 0.
    """
    rows = len(table)
    edges = []
    for column in ("source_id", "sha256"):
        if column in table:
            named = np.flatnonzero(table[column].to_numpy() != "")
            values = pd.factorize(table[column].to_numpy()[named])[0]
            first = named[np.unique(values, return_index=True)[1]]
            edges.append((named, first[values]))
    if not edges:
        return np.arange(rows)
    row = np.concatenate([a for a, _ in edges])
    first_row = np.concatenate([b for _, b in edges])
    graph = coo_array((np.ones(len(row), dtype=bool), (row, first_row)), shape=(rows, rows))
    codes: Codes = connected_components(graph, directed=False)[1].astype(np.int64)
    return codes


def assign_groups(
    table: pd.DataFrame, shares: Sequence[float], *, seed: int, by_category: bool
) -> Codes:
    """Assign groups of images to parts of given sizes, stratified by label and category.

    The groups are shuffled, ordered by stratum (labels present, category) and assigned by
    systematic sampling: short cycles through all parts. Every stratum is thereby spread over all
    parts, and the sizes of the parts are exact to within a few groups.

    Args:
        table: Has the columns `label`, `category`, `source_id` and, if known, `sha256`.
        shares: Share of each part in the images. They sum to 1.
        seed: Seed of the shuffle.
        by_category: Whether to stratify by category besides label.

    Returns:
        Part of each row, shape (rows,), 0 to len(shares) - 1.
    """
    groups = group_codes(table)
    count = int(groups.max()) + 1
    sizes = np.bincount(groups, minlength=count)
    stratum = _labels_present(groups, table["label"].to_numpy(), count)
    if by_category:
        categories = np.zeros(count, dtype=np.int64)
        categories[groups] = pd.factorize(table["category"], sort=True)[0]
        stratum = stratum * (int(categories.max()) + 1) + categories
    rng = np.random.default_rng(seed)
    order = rng.permutation(count)
    order = order[np.argsort(stratum[order], kind="stable")]
    middle = np.cumsum(sizes[order]) - sizes[order] / 2
    cycle = sizes.mean() / min(shares)
    phase = (middle / cycle + rng.random()) % 1.0
    part = np.empty(count, dtype=np.int64)
    part[order] = np.searchsorted(np.cumsum(shares)[:-1], phase, side="right")
    return part[groups]


def _labels_present(groups: Codes, labels: npt.NDArray[np.int8], count: int) -> Codes:
    """Return 1 for groups of real images only, 2 for synthetic ones only, and 3 for both."""
    present = np.zeros(count, dtype=np.int64)
    for label in (REAL, SYNTHETIC):
        present[np.unique(groups[labels == label])] += 1 << label
    return present


def make_missing_splits(
    manifest: Manifest, *, seed: int, val_share: float, test_share: float
) -> Manifest:
    """Make the splits that a manifest lacks.

    If no row has a split, train, val and test are made. If there is a train but no val split, val
    is taken from train. Other splits are kept.

    Args:
        manifest: The manifest.
        seed: Seed of the assignment.
        val_share: Share of val in all images.
        test_share: Share of test in all images.

    Raises:
        UserError: If only some rows have a split, there is no train split, or there are too few
            sources for the shares.
    """
    if val_share + test_share >= 1:
        raise UserError(
            f"--val-share, --test-share: {val_share} and {test_share} leave no images to train on. "
            "Their sum must be below 1."
        )
    table = manifest.table.copy()
    empty = table["split"] == ""
    if empty.all():
        shares = (1 - val_share - test_share, val_share, test_share)
        part = assign_groups(table, shares, seed=seed, by_category=True)
        table["split"] = np.array(["train", "val", "test"], dtype=object)[part]
    elif empty.any():
        path = table.loc[empty, "path"].iloc[0]
        raise UserError(
            f"{manifest.name}: {int(empty.sum())} image(s) have no split, first {path!r}. "
            "Fill the split column for all rows, or empty it for all."
        )
    present = set(table["split"].unique())
    if "train" not in present and not empty.all():
        raise UserError(
            f"{manifest.name}: has no train split (found: {', '.join(sorted(present))})."
        )
    if "val" not in present and "train" in present:
        training = table["split"] == "train"
        share = val_share / (1 - test_share)
        part = assign_groups(table[training], (1 - share, share), seed=seed, by_category=True)
        table.loc[training, "split"] = np.array(["train", "val"], dtype=object)[part]
    made = {"train", "val", "test"} if empty.all() else {"train", "val"}
    missing = made - set(table["split"].unique())
    if missing:
        raise UserError(
            f"{manifest.name}: has too few sources to be split: there are no images for "
            f"{', '.join(sorted(missing))}. Give more images, or fill the split column."
        )
    return manifest.with_table(table)


def check_splits(manifest: Manifest) -> None:
    """Refuse splits that leak from training into evaluation, or that lack a class.

    Evaluation sets may share sources with each other (a control made from the photographs of the
    test split), but not with train or val.

    Raises:
        UserError: If a source or a content is in train or val and in another split too, a content
            has both labels, or train or val lacks real or synthetic images.
    """
    table = manifest.table
    for column, what in (("source_id", "source"), ("sha256", "content")):
        known = table[table[column] != ""]
        if column == "sha256":
            labels = known.groupby(column)["label"].nunique()
            both = list(labels[labels > 1].index)
            _refuse(manifest, known, column, both, "has a copy in the other class")
        splits = known[[column, "split"]].drop_duplicates()
        shared = splits[splits[column].duplicated(keep=False)]
        development = shared["split"].isin(DEVELOPMENT_SPLITS)
        leaking = shared.loc[development, column].unique().tolist()
        _refuse(
            manifest, known, column, leaking, f"has its {what} in train or val and elsewhere too"
        )
    require_both_classes(manifest)


def require_both_classes(manifest: Manifest, splits: Sequence[str] = DEVELOPMENT_SPLITS) -> None:
    """Refuse splits, by default train and val, that lack a class.

    Raises:
        UserError: If one has no real or no synthetic images.
    """
    table = manifest.table
    for name in splits:
        present = set(table.loc[table["split"] == name, "label"].unique())
        if present != {REAL, SYNTHETIC}:
            found = "real" if present == {REAL} else "synthetic" if present else "no"
            raise UserError(
                f"{manifest.name}: the {name} split holds {found} images only, but both classes "
                "are needed."
            )


def _refuse(
    manifest: Manifest, table: pd.DataFrame, column: str, values: Sequence[Any], what: str
) -> None:
    if len(values) == 0:
        return
    rows = table[table[column] == values[0]].drop_duplicates(["split", "label"]).head(4)
    shown = ", ".join(f"{p!r} ({s})" for p, s in zip(rows["path"], rows["split"], strict=True))
    raise UserError(
        f"{manifest.name}: {len(values)} {column} value(s) cross the splits or classes: each image "
        f"{what}. First: {shown}. Put all images of a source into one split, or empty the split "
        "column to have splits made. Give different sources different names."
    )

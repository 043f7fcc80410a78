"""Which images train, which choose, which only report: by source, never by file.

A photograph and its regenerations share content, and so do copies of one file. All images linked
by a `source_id` or by equal content form a group, and a group is never divided.
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
from synthdetect.system.errors import UserError

Codes = npt.NDArray[np.int64]


def group_codes(table: pd.DataFrame) -> Codes:
    """Number the groups of images that must stay together.

    Two rows belong together if they share a `source_id` or a `sha256`, directly or through others;
    an empty value links nothing.

    Returns:
        Shape (rows,): the group of each row, 0 to groups - 1.
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
    here = np.concatenate([a for a, _ in edges])
    there = np.concatenate([b for _, b in edges])
    graph = coo_array((np.ones(len(here), dtype=bool), (here, there)), shape=(rows, rows))
    codes: Codes = connected_components(graph, directed=False)[1].astype(np.int64)
    return codes


def assign_groups(
    table: pd.DataFrame, shares: Sequence[float], *, seed: int, by_category: bool
) -> Codes:
    """Deal the groups into parts of given shares, stratified by label and, if asked, category.

    Groups of the same kind (labels present, category) are shuffled and laid in a row, and the row
    is cut like a systematic sample: part after part in short cycles. Every kind is thereby spread
    over all parts, and the parts' sizes are right to within a few groups. No loop over rows.

    Args:
        table: needs `label`, `category`, `source_id`, and `sha256` if known.
        shares: of each part, summing to 1.
        seed: of the shuffle.
        by_category: stratify by category too.

    Returns:
        Shape (rows,): the part of each row, 0 to len(shares) - 1.
    """
    groups = group_codes(table)
    count = int(groups.max()) + 1
    sizes = np.bincount(groups, minlength=count)
    kind = _labels_present(groups, table["label"].to_numpy(), count)
    if by_category:
        categories = np.zeros(count, dtype=np.int64)
        categories[groups] = pd.factorize(table["category"], sort=True)[0]
        kind = kind * (int(categories.max()) + 1) + categories
    rng = np.random.default_rng(seed)
    order = rng.permutation(count)
    order = order[np.argsort(kind[order], kind="stable")]
    middle = np.cumsum(sizes[order]) - sizes[order] / 2
    cycle = sizes.mean() / min(shares)
    phase = (middle / cycle + rng.random()) % 1.0
    part = np.empty(count, dtype=np.int64)
    part[order] = np.searchsorted(np.cumsum(shares)[:-1], phase, side="right")
    return part[groups]


def _labels_present(groups: Codes, labels: npt.NDArray[np.int8], count: int) -> Codes:
    """1: only real, 2: only synthetic, 3: both."""
    present = np.zeros(count, dtype=np.int64)
    for label in (REAL, SYNTHETIC):
        present[np.unique(groups[labels == label])] += 1 << label
    return present


def split(manifest: Manifest, *, seed: int, val_share: float, test_share: float) -> Manifest:
    """Keep the manifest's splits, or make those that are missing.

    Without any split, all three are made; with train but no val, val is taken from train.

    Raises:
        UserError: only some rows have a split, there is no train split, or there are too few
            sources for the shares.
    """
    if val_share + test_share >= 1:
        raise UserError(
            f"--val-share, --test-share: {val_share} and {test_share} leave nothing to train on; "
            "their sum must be below 1."
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
            f"{manifest.name}: has too few sources to be split; nothing is left for "
            f"{', '.join(sorted(missing))}. Give more images, or fill the split column."
        )
    return manifest.with_table(table)


def check(manifest: Manifest) -> None:
    """Refuse splits on which a result would not mean what it says.

    Evaluation sets may share sources with each other (a control made from the test's photographs),
    but none may share any with train or val.

    Raises:
        UserError: a source or a content in train or val and elsewhere too, one content with both
            labels, or a train or val split without both classes.
    """
    table = manifest.table
    for column, what in (("source_id", "source"), ("sha256", "content")):
        named = table[table[column] != ""]
        if column == "sha256":
            labels = named.groupby(column)["label"].nunique()
            _refuse(manifest, named, column, list(labels[labels > 1].index), "is in both classes")
        splits = named[[column, "split"]].drop_duplicates()
        repeated = splits[splits[column].duplicated(keep=False)]
        learned = repeated.loc[repeated["split"].isin(["train", "val"]), column].unique().tolist()
        _refuse(
            manifest, named, column, learned, f"has its {what} in train or val and elsewhere too"
        )
    require_both_classes(manifest)


def require_both_classes(manifest: Manifest) -> None:
    """Refuse data from which nothing can be learnt, or chosen.

    Raises:
        UserError: a train or val split without real, or without synthetic, images.
    """
    table = manifest.table
    for name in ("train", "val"):
        present = set(table.loc[table["split"] == name, "label"].unique())
        if present != {REAL, SYNTHETIC}:
            have = "real" if present == {REAL} else "synthetic" if present else "no"
            raise UserError(
                f"{manifest.name}: the {name} split holds {have} images only; "
                "both classes are needed."
            )


def _refuse(
    manifest: Manifest, table: pd.DataFrame, column: str, values: Sequence[Any], what: str
) -> None:
    if len(values) == 0:
        return
    rows = table[table[column] == values[0]].drop_duplicates(["split", "label"]).head(4)
    shown = ", ".join(f"{p!r} ({s})" for p, s in zip(rows["path"], rows["split"], strict=True))
    raise UserError(
        f"{manifest.name}: {len(values)} {column} value(s) cross the splits or classes; each image "
        f"{what}. First: {shown}. Put all images of a source into one split, or empty the split "
        "column to have it made; give sources that are not the same other names."
    )

"""Integrity of the data: unreadable files, sources across splits, and duplicates."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd

from synthdetect.audit.findings import NOTE, WARNING, Finding
from synthdetect.datasets.duplicates import MAX_PAIRS, exact_pairs, near_pairs, perceptual_hashes
from synthdetect.datasets.index import ProgressCallback
from synthdetect.datasets.labels import CLASSES
from synthdetect.datasets.manifest import Manifest
from synthdetect.datasets.schema import DEVELOPMENT_SPLITS


def check_unreadable(unreadable: pd.DataFrame, readable: int) -> Iterator[Finding]:
    """Report unreadable images.

    Args:
        unreadable: `path` and `error` of each.
        readable: Number of the other images.
    """
    if len(unreadable):
        path, error = unreadable.iloc[0]
        yield Finding(
            WARNING,
            "unreadable",
            f"{len(unreadable):,} of {len(unreadable) + readable:,} images cannot be read; the "
            f"first: {path} ({error})",
            float(len(unreadable)),
            "Repair or remove them; the table `unreadable` lists them.",
        )


def check_sources(table: pd.DataFrame) -> Iterator[Finding]:
    """Report images without a source, and sources across labels or splits."""
    unknown = int((table["source_id"] == "").sum())
    if unknown:
        yield Finding(
            NOTE,
            "source_unknown",
            f"{unknown:,} of {len(table):,} images name no source (source_id); each counts as a "
            "source of its own",
            float(unknown),
            "If the data have photographs and their regenerations, name their common source.",
        )
    named = table[table["source_id"] != ""]
    both = int((named.groupby("source_id")["label"].nunique() > 1).sum())
    if both:
        yield Finding(
            NOTE,
            "same_source_across_labels",
            f"{both:,} sources have real and synthetic images: by design, they are kept together",
            float(both),
            "Nothing needs to be done.",
        )
    splits = named[["source_id", "split"]].drop_duplicates()
    shared = splits[splits["source_id"].duplicated(keep=False)]
    development = shared["split"].isin(DEVELOPMENT_SPLITS)
    leaking = shared.loc[development, "source_id"].drop_duplicates()
    if len(leaking):
        yield Finding(
            WARNING,
            "source_across_splits",
            f"{len(leaking):,} sources have images in train or val and in another split too; the "
            f"first: {leaking.iloc[0]}",
            float(len(leaking)),
            "Put all images of a source into one split, or empty the split column.",
        )


def check_duplicates(
    manifest: Manifest, table: pd.DataFrame, near: bool, progress: ProgressCallback | None
) -> tuple[pd.DataFrame, list[Finding]]:
    """Report identical files and, if `near`, images of different groups that look alike.

    Returns:
        The table `duplicates` of an `Audit`, and the findings.
    """
    first, second = exact_pairs(table)
    tables = [_pair_table(table, "exact", first, second, np.zeros(len(first), dtype=np.int64))]
    if near:
        hashes = perceptual_hashes(manifest, progress)
        pairs = near_pairs(hashes, table["group"].to_numpy())
        tables.append(_pair_table(table, "near", *pairs))
    duplicates = pd.concat(tables, ignore_index=True)
    by_kind = duplicates.groupby("kind")
    return duplicates, [f for kind, rows in by_kind for f in _duplicate_findings(str(kind), rows)]


def _pair_table(
    table: pd.DataFrame, kind: str, first: Any, second: Any, distance: Any
) -> pd.DataFrame:
    sides = {"1": table.iloc[first], "2": table.iloc[second]}
    columns = {
        f"{column}_{side}": rows[column].to_numpy()
        for side, rows in sides.items()
        for column in ("path", "split", "label")
    }
    pairs = pd.DataFrame({"kind": kind, "distance": distance, **columns})
    for side in sides:
        pairs[f"label_{side}"] = pairs[f"label_{side}"].map(dict(enumerate(CLASSES)))
    return pairs


def _duplicate_findings(kind: str, pairs: pd.DataFrame) -> Iterator[Finding]:
    name = "duplicate" if kind == "exact" else "near_duplicate"
    what = "pair(s) of identical files" if kind == "exact" else "pair(s) of images that look alike"
    at_least = "at least " if len(pairs) >= MAX_PAIRS else ""
    splits = pairs["split_1"], pairs["split_2"]
    development = splits[0].isin(DEVELOPMENT_SPLITS) | splits[1].isin(DEVELOPMENT_SPLITS)
    across_splits = (splits[0] != splits[1]) & development
    across_labels = pairs["label_1"] != pairs["label_2"]
    # Identical files are kept together when splits are made; images that look alike are not.
    unsplit = (splits[0] == "") & (kind == "near")
    cases = [
        (WARNING, "across_splits", across_splits, "in train or val and in another split",
         "Give them a common source_id and put them into one split, or remove one of each."),
        (WARNING, "across_labels", across_labels, "with different labels",
         "Find out which label is right, or give a photograph and what was made of it a common "
         "source_id."),
        (WARNING, "across_sources", unsplit & ~across_labels,
         "of different sources, which may get into different splits",
         "Give them a common source_id, or remove one of each."),
        (NOTE, "within_split", ~across_splits & ~across_labels & ~unsplit,
         "with one label in one split, or in two evaluation splits",
         "They count as independent but are not; remove one of each."),
    ]  # fmt: skip
    for severity, suffix, matches, where, advice in cases:
        chosen = pairs[matches]
        if len(chosen):
            row = chosen.iloc[0]
            near = f", differing in {row['distance']} of 256 bits" if kind == "near" else ""
            yield Finding(
                severity,
                f"{name}_{suffix}",
                f"{at_least}{len(chosen):,} {what} {where}; the first: {row['path_1']} "
                f"({row['split_1']} {row['label_1']}) and {row['path_2']} "
                f"({row['split_2']} {row['label_2']}){near}",
                float(len(chosen)),
                advice,
            )

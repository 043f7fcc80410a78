"""Integrity of the data: unreadable files, sources across splits, and duplicates."""

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from synthdetect.audit.findings import NOTE, WARNING, Finding
from synthdetect.datasets.duplicates import (
    MAX_PAIRS,
    Rows,
    exact_pairs,
    near_pairs,
    perceptual_hashes,
)
from synthdetect.datasets.index import ProgressCallback
from synthdetect.datasets.labels import CLASSES
from synthdetect.datasets.manifest import Manifest
from synthdetect.datasets.schema import DEVELOPMENT_SPLITS

SEARCH_CUT_SHORT = "near_duplicate_search_cut_short"
"""The name of the note that not all images were compared."""

_SHOWN_PAIRS = 3


class NearSearch(NamedTuple):
    """How images that look alike are looked for.

    Attributes:
        leaks_only: Whether only pairs of an image in train or val and one in another split count.
        images: Most images that are compared.
        seconds: Time after which no further image is opened. Images whose hashes are kept from
            the index or from an earlier search need not be opened.
    """

    leaks_only: bool = False
    images: int | None = None
    seconds: float = math.inf


FULL_SEARCH = NearSearch()
"""The search of the audit command."""

QUICK_SEARCH = NearSearch(leaks_only=True, images=200_000, seconds=30.0)
"""The search at the start of a training."""


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
    manifest: Manifest,
    table: pd.DataFrame,
    near: NearSearch | None,
    *,
    seed: int,
    progress: ProgressCallback | None,
) -> tuple[pd.DataFrame, list[Finding]]:
    """Report identical files and, if `near` is given, images of different groups that look alike.

    Returns:
        The table `duplicates` of an `Audit`, and the findings.
    """
    first, second = exact_pairs(table)
    tables = [_pair_table(table, "exact", first, second, np.zeros(len(first), dtype=np.int64))]
    findings = []
    if near:
        rows = _rows_to_compare(table, near, seed)
        chosen = manifest.with_table(manifest.table.iloc[rows])
        hashed, hashes = perceptual_hashes(chosen, progress, seconds=near.seconds)
        compared = table.iloc[rows[hashed]]
        sides = _in_development(compared["split"]).to_numpy() if near.leaks_only else None
        pairs = near_pairs(hashes, compared["group"].to_numpy(), sides)
        tables.append(_pair_table(compared, "near", *pairs))
        if len(compared) < len(table) and len(rows):
            findings.append(_cut_short(len(compared), len(table)))
    duplicates = pd.concat(tables, ignore_index=True)
    for kind, found in duplicates.groupby("kind"):
        findings += _duplicate_findings(str(kind), found)
    return duplicates, findings


def _rows_to_compare(table: pd.DataFrame, near: NearSearch, seed: int) -> Rows:
    """Return all rows; for leaks, shuffled, and alternately of train or val and of other splits.

    If a search for leaks is cut short, it has then looked at as many images of either side, which
    finds the most pairs. It is empty if one side is.
    """
    if not near.leaks_only:
        return np.arange(len(table))[: near.images]
    rng = np.random.default_rng(seed)
    inside = _in_development(table["split"]).to_numpy()
    sides = [rng.permutation(np.flatnonzero(side)) for side in (inside, ~inside)]
    if not all(map(len, sides)):
        return np.empty(0, dtype=np.int64)
    turns = np.concatenate([np.arange(len(side)) for side in sides])
    return np.concatenate(sides)[np.argsort(turns, kind="stable")][: near.images]


def _in_development(splits: "pd.Series[str]") -> "pd.Series[bool]":
    return splits.isin(DEVELOPMENT_SPLITS)


def _cut_short(compared: int, images: int) -> Finding:
    return Finding(
        NOTE,
        SEARCH_CUT_SHORT,
        f"the search for near-duplicates across splits looked at {compared:,} of {images:,} images",
        compared / images,
        "`synthdetect audit` looks at all of them.",
    )


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
    pairs = pairs.sort_values("distance", kind="stable")
    for side in sides:
        pairs[f"label_{side}"] = pairs[f"label_{side}"].map(dict(enumerate(CLASSES)))
    return pairs


def _duplicate_findings(kind: str, pairs: pd.DataFrame) -> Iterator[Finding]:
    name = "duplicate" if kind == "exact" else "near_duplicate"
    what = "pair(s) of identical files" if kind == "exact" else "pair(s) of images that look alike"
    at_least = "at least " if len(pairs) >= MAX_PAIRS else ""
    splits = pairs["split_1"], pairs["split_2"]
    development = _in_development(splits[0]) | _in_development(splits[1])
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
            shown = "; ".join(map(_described, chosen.head(_SHOWN_PAIRS).to_dict("records")))
            yield Finding(
                severity,
                f"{name}_{suffix}",
                f"{at_least}{len(chosen):,} {what} {where}; the first: {shown}",
                float(len(chosen)),
                advice,
            )


def _described(pair: dict[str, Any]) -> str:
    one, other = (
        f"{pair[f'path_{side}']} ({pair[f'split_{side}']} {pair[f'label_{side}']})" for side in "12"
    )
    bits = f", differing in {pair['distance']} of 256 bits" if pair["kind"] == "near" else ""
    return f"{one} and {other}{bits}"

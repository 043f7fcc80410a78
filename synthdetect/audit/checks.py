"""All checks of an audit.

The checks read the indexed manifest, which already describes every file. Only the search for near
duplicates opens images, namely those whose hashes are not kept yet. train and val, on which a
detector is trained and chosen, are measured together as one part of the data, and every other split
is a part of its own.
"""

import pandas as pd

from synthdetect.audit.composition import check_balance, check_names
from synthdetect.audit.findings import NOTE, UNSPLIT, WARNING, Audit, Finding
from synthdetect.audit.integrity import (
    NearSearch,
    check_duplicates,
    check_sources,
    check_unreadable,
)
from synthdetect.audit.metadata import PROPERTIES, check_leaks, measure_baseline, tabulate
from synthdetect.datasets.index import ProgressCallback
from synthdetect.datasets.labels import CLASSES, REAL, SYNTHETIC
from synthdetect.datasets.manifest import Manifest
from synthdetect.datasets.schema import DEVELOPMENT_SPLITS
from synthdetect.datasets.splits import group_codes


def audit(
    manifest: Manifest,
    *,
    seed: int,
    near_duplicates: NearSearch | None,
    equalise_quality: int = 0,
    excluded: pd.DataFrame | None = None,
    progress: ProgressCallback | None = None,
) -> Audit:
    """Look for properties of the data that would make results misleading.

    Args:
        manifest: The indexed manifest, with any splits, and with unreadable files or without.
        seed: Seed of folds, samples and confidence intervals.
        near_duplicates: How images that look alike are looked for; None means not at all.
        equalise_quality: If positive, the images are described as `equalise` makes them: JPEGs of
            this quality, RGB, without EXIF.
        excluded: `path` and `error` of unreadable images that are not in the manifest.
        progress: Called while images are opened.
    """
    manifest, unreadable = _split_off_unreadable(manifest, excluded)
    table = _with_derived_columns(manifest.table)
    findings = [
        *check_unreadable(unreadable, len(table)),
        *check_balance(table),
        *check_names(table),
    ]
    if equalise_quality:
        findings.append(_equalised(table, equalise_quality))
        table = _equalise(table, equalise_quality)
    measured = {name: p for name, p in PROPERTIES.items() if set(p.features) <= set(table.columns)}
    tables = {name: tabulate(table, p) for name, p in measured.items()}
    tables["baseline"], too_few = measure_baseline(table, measured, seed)
    findings += [*too_few, *check_leaks(tables, measured), *check_sources(table)]
    tables["duplicates"], duplicates = check_duplicates(
        manifest, table, near_duplicates, seed=seed, progress=progress
    )
    findings += duplicates
    tables["unreadable"] = unreadable
    found = pd.DataFrame(findings, columns=list(Finding._fields))
    found = found.sort_values("severity", key=lambda s: s != WARNING, kind="stable")
    return Audit(found.reset_index(drop=True), tables)


def _split_off_unreadable(
    manifest: Manifest, excluded: pd.DataFrame | None
) -> tuple[Manifest, pd.DataFrame]:
    table, parts = manifest.table, [pd.DataFrame(columns=["path", "error"]), excluded]
    if "error" in table:
        bad = table["error"] != ""
        parts.append(table.loc[bad, ["path", "error"]])
        table = table[~bad]
    listed = [part for part in parts if part is not None and len(part)] or parts[:1]
    return manifest.with_table(table), pd.concat(listed, ignore_index=True)


def _with_derived_columns(table: pd.DataFrame) -> pd.DataFrame:
    split = table["split"]
    pixels = table["width"] * table["height"]
    return table.assign(
        part=split.mask(split.isin(DEVELOPMENT_SPLITS), "train+val").replace("", UNSPLIT),
        group=group_codes(table),
        aspect=table["width"] / table["height"],
        bits_per_pixel=8 * table["bytes"] / pixels,
    )


def _equalise(table: pd.DataFrame, quality: int) -> pd.DataFrame:
    same = table.assign(format="JPEG", mode="RGB", jpeg_quality=quality, exif=False)
    if "provenance" in same:
        same["provenance"] = ""  # an encoder keeps no metadata
    return same.drop(columns="bits_per_pixel")  # unknown until all images are encoded


def _equalised(table: pd.DataFrame, quality: int) -> Finding:
    coarser = table["jpeg_quality"].between(1, quality - 1).groupby(table["label"]).mean()
    shares = ", ".join(f"{coarser.get(k, 0):.0%} of the {CLASSES[k]}" for k in (REAL, SYNTHETIC))
    return Finding(
        NOTE,
        "equalised",
        "format, JPEG quality, colour mode and EXIF are equal, since all images become JPEGs of "
        f"quality {quality}. Differences in size and aspect ratio stay, and so may traces of "
        f"stronger compression: {shares} images were stored at a lower quality",
        float(coarser.max()),
        "If these shares differ much, give a lower --equalise-quality.",
    )

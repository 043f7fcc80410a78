"""Overlap of evaluated images with the images that a detector was trained on."""

from collections.abc import Mapping

import pandas as pd

from synthdetect.datasets.labels import SYNTHETIC

ADAPTED_TO = "(adapted to)"
"""Split name of the unlabelled images that a detector was adapted to; invalid in a manifest."""


def overlap(tables: Mapping[str, pd.DataFrame], trained: pd.DataFrame | None) -> pd.DataFrame:
    """Compare evaluated images with the images that a detector was trained with.

    Args:
        tables: rows of the evaluated images by split, with the manifest's columns.
        trained: rows of the training's manifest, including images it was adapted to (with the split
            `ADAPTED_TO`); None if they are not available.

    Returns:
        One row per fact: `split`, `fact`, `value` and `warning` (whether the fact makes results
        doubtful).
    """
    rows: list[tuple[str, str, str, bool]] = []
    if trained is None:
        rows.append(("", "images the detector was trained on", "not known", True))
        return _table(rows)
    parts = {name: trained[trained["split"] == name] for name in ("train", "val")}
    adapted = trained.loc[trained["split"] == ADAPTED_TO]
    seen = set(parts["train"].loc[parts["train"]["label"] == SYNTHETIC, "generator"])
    for split, table in tables.items():
        for name, part in parts.items():
            for column, what in (("sha256", "contents"), ("source_id", "sources")):
                if column not in table or column not in part:
                    rows.append((split, f"{what} shared with {name}", "not known", False))
                    continue
                known = set(part[column]) - {""}
                shared = int(table[column].isin(known).sum())
                text = f"{shared} of {len(table)} images"
                is_doubtful = shared > 0 and (split, name) != ("val", "val")
                rows.append((split, f"{what} shared with {name}", text, is_doubtful))
        if len(adapted):
            rows.append((split, "contents adapted to", *_adapted(table, adapted)))
        generators = set(table.loc[table["label"] == SYNTHETIC, "generator"]) - {""}
        for what, names in (("in training", generators & seen), ("unseen", generators - seen)):
            rows.append((split, f"generators {what}", ", ".join(sorted(names)) or "none", False))
    return _table(rows)


def _adapted(table: pd.DataFrame, adapted: pd.DataFrame) -> tuple[str, bool]:
    """Number of images the detector was adapted to, and whether it is unknown or not zero."""
    known = set(adapted["sha256"]) - {""}
    if not known or "sha256" not in table:
        return "not known", True
    shared = int(table["sha256"].isin(known).sum())
    return f"{shared} of {len(table)} images", shared > 0


def _table(rows: list[tuple[str, str, str, bool]]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=["split", "fact", "value", "warning"])

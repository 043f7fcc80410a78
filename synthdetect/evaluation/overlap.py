"""What an evaluation has and has not kept apart from training, as facts one can read."""

from collections.abc import Mapping

import pandas as pd

from synthdetect.datasets.labels import SYNTHETIC

ADAPTED_TO = "(adapted to)"
"""Stands for the split of those unlabelled images; no split of data can be called so."""


def overlap(tables: Mapping[str, pd.DataFrame], trained: pd.DataFrame | None) -> pd.DataFrame:
    """Compare evaluated images with those a detector was trained, chosen on and adapted to.

    Args:
        tables: evaluated rows by split, with the manifest's columns.
        trained: rows of the training's manifest, with `ADAPTED_TO` for a split, or None where they
            are not to be had.

    Returns:
        Rows `split`, `fact`, `value` and `warning` (whether the number makes results doubtful).
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
                doubtful = shared > 0 and (split, name) != ("val", "val")
                rows.append((split, f"{what} shared with {name}", text, doubtful))
        if len(adapted):
            rows.append((split, "contents adapted to", *_contents(table, adapted)))
        generators = set(table.loc[table["label"] == SYNTHETIC, "generator"]) - {""}
        for what, names in (("in training", generators & seen), ("unseen", generators - seen)):
            rows.append((split, f"generators {what}", ", ".join(sorted(names)) or "none", False))
    return _table(rows)


def _contents(table: pd.DataFrame, adapted: pd.DataFrame) -> tuple[str, bool]:
    """How many images the detector was adapted to, if that is known; doubtful if not none."""
    known = set(adapted["sha256"]) - {""}
    if not known or "sha256" not in table:
        return "not known", True
    shared = int(table["sha256"].isin(known).sum())
    return f"{shared} of {len(table)} images", shared > 0


def _table(rows: list[tuple[str, str, str, bool]]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=["split", "fact", "value", "warning"])

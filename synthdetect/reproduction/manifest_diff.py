"""Manifest diff: what has changed in data since a run recorded its manifest, image by image."""

import numpy as np
import numpy.typing as npt
import pandas as pd

CHANGES = {
    "sha256": "altered",
    "label": "other label",
    "split": "other split",
    "generator": "other generator",
    "category": "other category",
    "source_id": "other source",
}
"""The name of a change by the column that differs."""

REMOVED, ADDED = "removed", "added"

_HASH_SHOWN = 12  # digits


def match(recorded: pd.DataFrame, today: pd.DataFrame) -> npt.NDArray[np.int64]:
    """Find each recorded image in today's manifest, by path or else by content.

    Args:
        recorded: The table of a manifest, with `path` and `sha256`.
        today: The table of another one.

    Returns:
        The row in `today` of each recorded image, of shape (recorded rows,); -1 if it has none.
    """
    rows = _rows_of(recorded["path"], today["path"])
    lost = np.flatnonzero(rows < 0)
    new = np.setdiff1d(np.arange(len(today)), rows)
    before, now = _content(recorded.iloc[lost]), _content(today.iloc[new])
    found = _rows_of(before, now)
    rows[lost[found >= 0]] = new[found[found >= 0]]
    return rows


def diff_manifests(recorded: pd.DataFrame, today: pd.DataFrame) -> pd.DataFrame:
    """List what has changed. Another path for the same content is no change.

    Returns:
        A table with a row for each change: `change` (a value of `CHANGES`, `REMOVED` or `ADDED`),
        `path`, and the values `recorded` and `today`.
    """
    rows = match(recorded, today)
    before = recorded[rows >= 0].astype(str).reset_index(drop=True)
    now = today.iloc[rows[rows >= 0]].astype(str).reset_index(drop=True)
    found = [
        pd.DataFrame(
            {
                "change": name,
                "path": now["path"],
                "recorded": before[column].str[: _HASH_SHOWN if column == "sha256" else None],
                "today": now[column].str[: _HASH_SHOWN if column == "sha256" else None],
            }
        )[before[column] != now[column]]
        for column, name in CHANGES.items()
    ]
    added = np.setdiff1d(np.arange(len(today)), rows)
    lone = {REMOVED: recorded.loc[rows < 0, "path"], ADDED: today["path"].iloc[added]}
    for name, paths in lone.items():
        found.append(pd.DataFrame({"change": name, "path": paths, "recorded": "", "today": ""}))
    return pd.concat(found, ignore_index=True)


def _rows_of(wanted: "pd.Series[str]", values: "pd.Series[str]") -> npt.NDArray[np.int64]:
    """Return the row of each wanted value among unique values; -1 if it is not among them."""
    return np.asarray(pd.Index(values).get_indexer(pd.Index(wanted)), dtype=np.int64)


def _content(rows: pd.DataFrame) -> "pd.Series[str]":
    """Return what identifies the content of each image; copies of one file are numbered."""
    return rows["sha256"] + " " + rows.groupby("sha256").cumcount().astype(str)

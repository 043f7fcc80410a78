"""Metrics on slices of the images by category, file format, size or any other column."""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import pandas as pd

from synthdetect.datasets.labels import REAL, SYNTHETIC
from synthdetect.datasets.splits import group_codes
from synthdetect.evaluation.intervals import effective_sources, interval, jackknife_metrics
from synthdetect.system.errors import UserError

SIZE = "size"
"""Name of the slices by the shorter side, which is computed from `width` and `height`."""

UNKNOWN = "(unknown)"
"""Slice of the images whose value is unknown."""

_DEFAULT = ("category", "platform", "format", "jpeg_quality", SIZE)
_EDGES = {
    SIZE: (0, 128, 256, 512, 1024, 2048),
    "jpeg_quality": (0, 1, 50, 70, 80, 90, 95),
}
"""Lower edges of the bins of some columns, equal for all data sets."""

_MOST_VALUES = 12  # numeric columns with more distinct values are binned by quartiles
_SHOWN = ("balanced_accuracy", "real_accuracy", "fake_accuracy", "f1", "ece")


def slice_table(
    table: pd.DataFrame, names: Sequence[str], threshold: float, *, seed: int
) -> pd.DataFrame:
    """Compute metrics on each slice.

    Args:
        table: predictions table.
        names: columns to slice by, or `SIZE`.
        threshold: threshold from validation.
        seed: seed of `intervals`.

    Returns:
        One row per slice: `slice` (the column), `value`, `images`, `real`, `synthetic`, `auc`,
        `auc_low`, `auc_high` (95 % interval over sources; nan with a single source), and further
        metrics. Metrics that need both classes are nan in slices with one. Empty without
        names.

    Raises:
        UserError: If the table has no such column.
    """
    rows, groups, label = [], group_codes(table), table["label"].to_numpy()
    for name in names:
        values = slice_values(table, name)
        subsets = {str(v): (values == v).to_numpy() for v in values.unique()}
        found = jackknife_metrics(label, table["logit"], threshold, groups, subsets, seed=seed)
        for value in sorted(subsets, key=_natural):
            chosen = subsets[value]
            measured = {metric: float(values[0]) for metric, values in found[value].items()}
            sources = effective_sources(label[chosen], groups[chosen])
            low, high = interval(found[value]["auc"], sources)
            rows.append(
                {
                    "slice": name,
                    "value": value,
                    "images": int(chosen.sum()),
                    "real": int((label[chosen] == REAL).sum()),
                    "synthetic": int((label[chosen] == SYNTHETIC).sum()),
                    "auc": measured["auc"],
                    "auc_low": low,
                    "auc_high": high,
                    **{shown: measured[shown] for shown in _SHOWN},
                }
            )
    return pd.DataFrame(rows)


def default_slices(table: pd.DataFrame) -> list[str]:
    """Return the columns to slice by if none are given: the usual ones, if their values differ."""
    known = [n for n in _DEFAULT if n in table or (n == SIZE and {"width", "height"} <= set(table))]
    return [name for name in known if slice_values(table, name).nunique() > 1]


def slice_values(table: pd.DataFrame, name: str, option: str = "--slices") -> "pd.Series[str]":
    """Return the name of the slice that contains each image.

    Args:
        table: manifest or predictions table.
        name: column, or `SIZE`.
        option: option that names the column, for the message.

    Raises:
        UserError: If the table has no such column.
    """
    if name == SIZE and {"width", "height"} <= set(table):
        sides = table[["width", "height"]].apply(pd.to_numeric, errors="coerce")
        numbers = sides.min(axis=1, skipna=False)
    elif name in table:
        column = table[name]
        numbers = pd.to_numeric(column, errors="coerce")
        if numbers.isna().any() or (name not in _EDGES and numbers.nunique() <= _MOST_VALUES):
            # A Parquet file holds whole numbers beside blanks as 1.0 and nan.
            known = column.notna() & (column != "")
            return column.convert_dtypes().astype(str).where(known, UNKNOWN)
    else:
        raise UserError(
            f"{option}: no column {name!r} in the table. Found: "
            f"{', '.join(map(str, table.columns))}, {SIZE}."
        )
    edges = _EDGES.get(name) or np.unique(np.quantile(numbers, [0, 0.25, 0.5, 0.75]))
    return _binned(numbers, np.asarray(edges, dtype=float))


def _binned(numbers: "pd.Series[float]", edges: np.ndarray) -> "pd.Series[str]":
    names = [f"{low:g} to below {high:g}" for low, high in pairwise(edges)]
    names.append(f"{edges[-1]:g} and more")
    if edges[:2].tolist() == [0, 1]:
        names[0] = "none"  # a JPEG quality of 0 means another format
    position = np.clip(np.digitize(numbers, edges) - 1, 0, len(names) - 1)
    found = pd.Series(np.array(names, dtype=object)[position], index=numbers.index)
    return found.where(numbers.notna(), UNKNOWN)


def _natural(value: str) -> tuple[float, str]:
    """Sort key: the number that a name starts with, then the name."""
    head = value.split(" ")[0]
    try:
        return float(head), value
    except ValueError:
        return -1.0, value

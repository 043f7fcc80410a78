"""The AUC of each generator against each group of real images.

The AUC of a generator depends on the real images that it is set against: photographs of one camera,
format or subject can be far easier to tell from its images than those of another.
"""

from typing import Any

import pandas as pd

from synthdetect.datasets.labels import REAL, SYNTHETIC
from synthdetect.datasets.splits import group_codes
from synthdetect.evaluation.intervals import (
    effective_sources,
    interval,
    jackknife_auc,
    lowest_interval,
)
from synthdetect.evaluation.slices import slice_values
from synthdetect.system.arrays import FloatArray

WORST = "(worst)"
"""Name in the column `generator` of the row with the lowest AUC."""

LEAST_SOURCES = 10
"""Effective number of sources of each label below which a cell cannot be the worst."""

_DEFAULT = ("platform", "category", "format")


def real_groups_matrix(table: pd.DataFrame, by: str, *, seed: int) -> pd.DataFrame:
    """Compute the AUC of each generator's images against each group of real images.

    Args:
        table: predictions table.
        by: column whose values divide the real images, as in `slices.slice_values`.
        seed: seed of `intervals`.

    Returns:
        One row per generator and group: `generator`, `real_group`, `synthetic` and `real` (numbers
        of images), `auc`, `auc_low`, `auc_high` (95 % interval over sources, nan if there are too
        few). The last row is `WORST`: the lowest AUC of the cells with at least `LEAST_SOURCES`
        sources of each label, with the generator and the group in `real_group` and the interval of
        `intervals.lowest_interval`; it is absent if there are fewer than two such cells. Empty with
        fewer than two groups, or without synthetic images.

    Raises:
        UserError: If the table has no such column.
    """
    values = slice_values(table, by, option="--real-by").to_numpy()
    label, logit = table["label"].to_numpy(), table["logit"].to_numpy()
    generator, sources_of = table["generator"].to_numpy(), group_codes(table)
    groups = sorted(set(values[label == REAL]))
    if len(groups) < 2:
        return pd.DataFrame()
    rows: list[dict[str, Any]] = []
    judged: list[tuple[float, str, tuple[FloatArray, float]]] = []
    for name in sorted(set(generator[label == SYNTHETIC])):
        for group in groups:
            own = (label == SYNTHETIC) & (generator == name)
            real = (label == REAL) & (values == group)
            cell = own | real
            auc = jackknife_auc(label[cell], logit[cell], sources_of[cell], seed=seed)
            sources = effective_sources(label[cell], sources_of[cell])
            low, high = interval(auc, sources)
            shown = name or "(unnamed)"
            rows.append(
                {
                    "generator": shown,
                    "real_group": group,
                    "synthetic": int(own.sum()),
                    "real": int(real.sum()),
                    "auc": float(auc[0]),
                    "auc_low": low,
                    "auc_high": high,
                }
            )
            if sources >= LEAST_SOURCES:
                judged.append((float(auc[0]), f"{shown} against {group}", (auc, sources)))
    if len(judged) > 1:
        value, where, _ = min(judged, key=lambda cell: cell[0])
        low, high = lowest_interval([cell for _, _, cell in judged])
        rows.append(
            {
                "generator": WORST, "real_group": where,
                "synthetic": sum(label == SYNTHETIC), "real": sum(label == REAL),
                "auc": value, "auc_low": low, "auc_high": high,
            }
        )  # fmt: skip
    return pd.DataFrame(rows)


def default_real_by(table: pd.DataFrame) -> str:
    """Return the first usual column in which the real images differ, or an empty string."""
    real = table[table["label"] == REAL]
    for name in _DEFAULT:
        if name in real and slice_values(real, name).nunique() > 1:
            return name
    return ""

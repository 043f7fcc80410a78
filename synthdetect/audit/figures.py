"""Figures of an audit: the values of each property by label, and the AUC of each property."""

from collections.abc import Iterator

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from synthdetect.audit.findings import Audit
from synthdetect.audit.metadata import AUC_LIMIT, PROPERTIES
from synthdetect.datasets.labels import CLASSES
from synthdetect.evaluation.figures import NEUTRAL, REAL_COLOUR, SYNTHETIC_COLOUR


def draw_audit(audit: Audit) -> Iterator[tuple[str, Figure]]:
    """Yield name and figure of each property, and of `baseline` if an AUC was measured."""
    for name, what in PROPERTIES.items():
        if len(audit.tables.get(name, ())):
            yield name, _property(audit.tables[name], what.description)
    if len(audit.tables["baseline"]):
        yield "baseline", _baseline(audit.tables["baseline"])


def _property(table: pd.DataFrame, description: str) -> Figure:
    parts = list(table.groupby("part", sort=False))
    values = table["value"].nunique()
    figure = Figure(figsize=(1.5 + 4 * len(parts), 1.5 + 0.35 * values), layout="constrained")
    figure.suptitle(f"Share of each class's images by {description}")
    axes = figure.subplots(1, len(parts), squeeze=False)[0]
    for ax, (part, rows) in zip(axes, parts, strict=True):
        y = np.arange(len(rows))
        for name, colour, shift in zip(
            CLASSES, (REAL_COLOUR, SYNTHETIC_COLOUR), (-0.2, 0.2), strict=True
        ):
            ax.barh(
                y + shift, rows[f"{name}_share"], 0.4, color=colour,
                label=f"{name} ({rows[name].sum():,})",
            )  # fmt: skip
        ax.set_yticks(y, rows["value"], parse_math=False)
        ax.set_title(part, parse_math=False)
        ax.set(xlim=(0, 1), xlabel="share")
        ax.invert_yaxis()
        ax.legend()
    return figure


def _baseline(table: pd.DataFrame) -> Figure:
    parts = list(table.groupby("part", sort=False))
    figure = Figure(
        figsize=(1.5 + 4 * len(parts), 1.5 + 0.35 * table["property"].nunique()),
        layout="constrained",
    )
    figure.suptitle("How well metadata alone predict the label")
    axes = figure.subplots(1, len(parts), squeeze=False)[0]
    for ax, (part, rows) in zip(axes, parts, strict=True):
        y = np.arange(len(rows))
        spread = [rows["auc"] - rows["low"], rows["high"] - rows["auc"]]
        ax.errorbar(
            rows["auc"], y, xerr=np.maximum(spread, 0), fmt="o", color=REAL_COLOUR, capsize=4
        )
        ax.axvline(0.5, color=NEUTRAL, linestyle=":")
        ax.axvline(AUC_LIMIT, color=SYNTHETIC_COLOUR, linestyle="--", label="warning above")
        ax.set_yticks(y, rows["property"])
        ax.set_title(part, parse_math=False)
        ax.set(xlim=(0.35, 1.02), xlabel="AUC out of fold, with 95 % interval")
        ax.invert_yaxis()
        ax.legend()
    return figure

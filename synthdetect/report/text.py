"""Format names, numbers and tables for a report."""

import math
import re

import pandas as pd

from synthdetect.evaluation.metrics import METRICS
from synthdetect.system.redaction import without_secrets
from synthdetect.system.visible import visible

UNDEFINED = "undefined"

_LABELS = {
    "auc": "AUC",
    "f1": "F1",
    "f1_macro": "F1 (macro)",
    "eer": "EER",
    "nll": "NLL",
    "nll_balanced": "NLL (balanced)",
    "brier": "Brier score",
    "ece": "ECE",
    "ece_balanced": "ECE (balanced)",
    "auc_against_real": "AUC against real",
    "auc_change": "AUC change",
    **{f"tpr_at_fpr_{level}": f"TPR at {level} % FPR" for level in (1, 5, 10)},
}
_WORDS = (
    "generator", "category", "path", "image", "name", "value", "source_id", "sha256", "split",
    "level",
)  # fmt: skip
"""Columns that are never formatted as numbers, even if all their cells look like numbers."""

_COUNTS = (
    "images", "real", "synthetic", "count", "fold", "folds", "epoch", "epochs", "seed", "values",
    "differing", "at",
)  # fmt: skip
"""Columns of whole numbers, shown without decimals although MLflow stores them as floats."""


def clean(text: str) -> str:
    """Make text from any source safe to show.

    Secrets in URIs are replaced. Invisible characters, and those that change the direction of
    text, are escaped.
    """
    return visible(without_secrets(text))


def label(name: str) -> str:
    """Readable name of a metric or column."""
    return _LABELS.get(name) or name.replace("_", " ")


def format_metric(value: float | str) -> str:
    """Format a metric with three decimals. NaN and empty text give `undefined`."""
    return UNDEFINED if value == "" or math.isnan(float(value)) else f"{float(value):.3f}"


def format_number(value: float | str, *, whole: bool = False) -> str:
    """Format any number: very small and large ones in scientific notation, counts as integers.

    Args:
        value: The number or its text. Text without point and exponent is an integer.
        whole: Whether the number is a count.
    """
    if format_metric(value) == UNDEFINED:
        return UNDEFINED
    if math.isinf(float(value)):
        return "∞" if float(value) > 0 else "-∞"
    if whole or (isinstance(value, str) and value.lstrip("+-").isdecimal()):
        return f"{float(value):.0f}"
    size = abs(float(value))
    return f"{float(value):.1e}" if 0 < size < 0.0005 or size >= 1e6 else format_metric(value)


def format_interval(value: float | str, low: float | str, high: float | str) -> str:
    """Format a metric and the bounds of its confidence interval: `0.893 [0.855, 0.931]`."""
    shown = format_metric(value)
    if shown == UNDEFINED:
        return UNDEFINED
    bounds = (format_metric(low), format_metric(high))
    return f"{shown} [{UNDEFINED if UNDEFINED in bounds else ', '.join(bounds)}]"


def format_table(table: pd.DataFrame) -> pd.DataFrame:
    """Round the numbers of a table, and write each confidence interval into its value's column.

    Args:
        table: Cells of text. The columns `x`, `x_low` and `x_high` hold a value and its bounds, as
            do `low` and `high` and the column before them.
    """
    numeric = {column for column in table if _is_numeric(table, column)}
    bounds_of = {column: (f"{column}_low", f"{column}_high") for column in table}
    names = list(table)
    if "low" in names[1:]:
        bounds_of[names[names.index("low") - 1]] = ("low", "high")
    pairs = {column: pair for column, pair in bounds_of.items() if {column, *pair} <= numeric}
    bounds = {name for pair in pairs.values() for name in pair}
    columns: list[tuple[str, list[str]]] = []
    for column in table:
        if column in pairs:
            cells = zip(*(table[name] for name in (column, *pairs[column])), strict=True)
            columns.append((f"{label(column)} [95 %]", [format_interval(*cell) for cell in cells]))
        elif column not in bounds:
            columns.append((label(column), _cells(table, column)))
    result = pd.DataFrame(dict(enumerate(cells for _, cells in columns)), dtype=object)
    return result.set_axis([title for title, _ in columns], axis=1)


def _is_numeric(table: pd.DataFrame, column: str) -> bool:
    """Whether a column of text contains numbers and, apart from empty cells, nothing else."""
    if column in _WORDS and not (column == "value" and {"low", "high"} <= set(table)):
        return False
    cells = [cell for cell in table[column] if cell != ""]
    return bool(cells or column in METRICS) and all(map(is_number, cells))


def is_number(cell: str) -> bool:
    """Whether a text is a number in a program's notation."""
    # float() also accepts names that are not meant as numbers: 1_000, infinity.
    return bool(re.fullmatch(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?|-?inf|nan", cell, re.IGNORECASE))


def _cells(table: pd.DataFrame, column: str) -> list[str]:
    cells: list[str] = table[column].tolist()
    if not _is_numeric(table, column):
        return cells
    if column in METRICS:
        return [format_metric(cell) for cell in cells]
    return ["" if cell == "" else format_number(cell, whole=column in _COUNTS) for cell in cells]

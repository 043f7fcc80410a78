"""How names and numbers are written in a report."""

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
"""Columns that stay as they are even where all of it looks like numbers."""

_COUNTS = (
    "images", "real", "synthetic", "count", "fold", "folds", "epoch", "epochs", "seed", "values",
    "differing", "at",
)  # fmt: skip
"""Columns of whole numbers, which need no decimals though MLflow keeps them as floats."""


def clean(text: str) -> str:
    """Text from anywhere, fit to be shown.

    Secrets are taken out of URIs. Characters that cannot be seen, or that turn the order of others
    around, are spelled out.
    """
    return visible(without_secrets(text))


def label(name: str) -> str:
    """A metric's or column's name as a person writes it."""
    return _LABELS.get(name) or name.replace("_", " ")


def metric(value: float | str) -> str:
    """A metric with three decimals; `undefined` if it is nan or its text is empty."""
    return UNDEFINED if value == "" or math.isnan(float(value)) else f"{float(value):.3f}"


def number(value: float | str, *, whole: bool = False) -> str:
    """Any number: as `metric`, but not all that is small is 0, and whole ones have no decimals.

    Args:
        value: the number, or its text; text without point or exponent is a whole number.
        whole: whether it is a count.
    """
    if metric(value) == UNDEFINED:
        return UNDEFINED
    if math.isinf(float(value)):
        return "∞" if float(value) > 0 else "-∞"
    if whole or (isinstance(value, str) and value.lstrip("+-").isdecimal()):
        return f"{float(value):.0f}"
    size = abs(float(value))
    return f"{float(value):.1e}" if 0 < size < 0.0005 or size >= 1e6 else metric(value)


def interval(value: float | str, low: float | str, high: float | str) -> str:
    """A metric with the bounds of its interval: `0.893 [0.855, 0.931]`."""
    if metric(value) == UNDEFINED:
        return UNDEFINED
    bounds = (metric(low), metric(high))
    return f"{metric(value)} [{UNDEFINED if UNDEFINED in bounds else ', '.join(bounds)}]"


def readable(table: pd.DataFrame) -> pd.DataFrame:
    """A table of text with its numbers rounded and each interval in its value's column.

    Args:
        table: text only. The columns `x`, `x_low` and `x_high` belong together, and so do `low`
            and `high` and the column before them.
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
            columns.append((f"{label(column)} [95 %]", [interval(*cell) for cell in cells]))
        elif column not in bounds:
            columns.append((label(column), _cells(table, column)))
    result = pd.DataFrame(dict(enumerate(cells for _, cells in columns)), dtype=object)
    return result.set_axis([title for title, _ in columns], axis=1)


def _is_numeric(table: pd.DataFrame, column: str) -> bool:
    """Whether a column of text holds numbers: some, and nothing else but gaps."""
    if column in _WORDS and not (column == "value" and {"low", "high"} <= set(table)):
        return False
    cells = [cell for cell in table[column] if cell != ""]
    return bool(cells or column in METRICS) and all(map(is_number, cells))


def is_number(cell: str) -> bool:
    """Whether a text is a number as a program writes one."""
    # Not everything that float() takes is meant as a number: 1_000, infinity.
    return bool(re.fullmatch(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?|-?inf|nan", cell, re.IGNORECASE))


def _cells(table: pd.DataFrame, column: str) -> list[str]:
    cells: list[str] = table[column].tolist()
    if not _is_numeric(table, column):
        return cells
    if column in METRICS:
        return [metric(cell) for cell in cells]
    return ["" if cell == "" else number(cell, whole=column in _COUNTS) for cell in cells]

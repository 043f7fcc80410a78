"""Composition of the splits: balance of the labels, and names that occur with one label only."""

from collections.abc import Iterator
from typing import Any

import pandas as pd

from synthdetect.audit.findings import NOTE, UNSPLIT, WARNING, Finding
from synthdetect.datasets.labels import CLASSES, REAL, SYNTHETIC
from synthdetect.datasets.schema import DEVELOPMENT_SPLITS

MIN_IMAGES = 10
"""Number of images of a generator, platform or category from which a single label is reported."""

IMBALANCED, VERY_IMBALANCED = 0.4, 0.2
"""Share of the smaller class in a split below which there is a note, and a warning."""

_ADVICE = {
    "generator": "Name the generator of real counterparts likewise, or leave the column empty.",
    "platform": "Have real and synthetic images of every platform, or leave these out.",
    "category": "Have real and synthetic images of every category, or leave these out.",
}


def count_by_label(values: "pd.Series[Any]", labels: "pd.Series[Any]") -> pd.DataFrame:
    """Count images, with one row per value and one column per label."""
    return pd.crosstab(values, labels).reindex(columns=[REAL, SYNTHETIC], fill_value=0)


def check_balance(table: pd.DataFrame) -> Iterator[Finding]:
    """Report splits in which one class is much smaller than the other."""
    counts = count_by_label(table["split"], table["label"])
    for split, (real, synthetic) in zip(counts.index, counts.to_numpy().tolist(), strict=True):
        smaller = min(real, synthetic) / (real + synthetic)
        if smaller >= IMBALANCED or (smaller == 0 and split not in DEVELOPMENT_SPLITS):
            continue
        yield Finding(
            WARNING if smaller < VERY_IMBALANCED else NOTE,
            "imbalance",
            f"{split or UNSPLIT}: {real:,} real and {synthetic:,} synthetic images; the smaller "
            f"class is {smaller:.0%}",
            smaller,
            "Look at balanced accuracy, AUC and ECE of both classes; accuracy follows the larger.",
        )


def check_names(table: pd.DataFrame) -> Iterator[Finding]:
    """Report generators, platforms and categories that occur with one label or in one part only."""
    for column, advice in _ADVICE.items():
        if column not in table:
            continue
        named = table[table[column] != ""]
        for part, rows in named.groupby("part"):
            yield from _check_labels(str(part), rows, column, advice)
        if column != "category":
            yield from _check_parts(named, column)


def _check_labels(part: str, rows: pd.DataFrame, column: str, advice: str) -> Iterator[Finding]:
    counts = count_by_label(rows[column], rows["label"])
    if (counts.sum() == 0).any():  # one class has no names at all: nothing to compare
        return
    one_label = counts[(counts.min(axis=1) == 0) & (counts.sum(axis=1) >= MIN_IMAGES)]
    if len(one_label):
        listed = "; ".join(
            f"{_listed(one_label.index[one_label[1 - label] == 0])} only {CLASSES[label]}"
            for label in (REAL, SYNTHETIC)
            if (one_label[1 - label] == 0).any()
        )
        yield Finding(
            WARNING,
            f"{column}_one_side",
            f"{part}: {len(one_label)} of {len(counts)} {column} value(s) have one label only: "
            f"{listed}",
            float(len(one_label)),
            advice,
        )


def _check_parts(named: pd.DataFrame, column: str) -> Iterator[Finding]:
    development = named["split"].isin(DEVELOPMENT_SPLITS)
    trained, tested = set(named.loc[development, column]), set(named.loc[~development, column])
    if trained and tested and trained != tested:
        yield Finding(
            NOTE,
            f"{column}_one_side",
            f"{column} in evaluation only: {_listed(sorted(tested - trained))}; "
            f"in train or val only: {_listed(sorted(trained - tested))}",
            float(len(trained ^ tested)),
            "This is intended if generalisation is to be measured; read the results of each "
            "separately.",
        )


def _listed(values: Any, most: int = 8) -> str:
    names = [str(value) for value in values]
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more or "none"

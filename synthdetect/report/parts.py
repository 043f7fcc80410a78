"""Building blocks of sections: shortened tables, and figures with captions and alternative text."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath

import pandas as pd

from synthdetect.evaluation.metrics import METRICS
from synthdetect.report.page import Figure, Table
from synthdetect.report.record import Artifacts
from synthdetect.report.text import format_table, label

MAIN_METRICS = ("auc", "balanced_accuracy", "real_accuracy", "fake_accuracy", "f1", "eer", "ece")
"""The metrics that wide tables show."""

_ROWS = 100  # greatest number of rows that a table shows
_COLUMNS = 8  # greatest number of columns of a table that shows all metrics


@dataclass(frozen=True)
class Description:
    """Description of a figure.

    Attributes:
        caption: Caption.
        numbers: Names of the numbers in the alternative text.
    """

    caption: str
    numbers: tuple[str, ...] = ()


DESCRIPTIONS: dict[str, Description] = {
    "folds": Description("Metrics and ROC curves of the folds", ("AUC of the folds",)),
    "learning_curves": Description(
        "Loss and AUC in training and validation by epoch", ("chosen epoch", "validation AUC")
    ),
    "roc": Description("ROC curve: true-positive rate by false-positive rate", ("AUC",)),
    "precision_recall": Description("Precision by recall", ("average precision",)),
    "scores": Description("Histogram of the scores of real and synthetic images", ("threshold",)),
    "generators": Description("AUC of each generator", ("lowest generator", "highest generator")),
    "matrix": Description("AUC of each generator against each group of real images"),
    "confusion": Description(
        "Confusion matrix: true and predicted labels",
        ("accuracy", "real accuracy", "fake accuracy"),
    ),
    "reliability": Description("Share of synthetic images by predicted probability", ("ECE",)),
    "worst_mistakes": Description(
        "Wrongly classified images furthest from the threshold", ("accuracy",)
    ),
    "robustness": Description("AUC, real and fake accuracy by level of each perturbation"),
    "robustness_generators": Description("AUC of each generator under each perturbation"),
    "effects": Description("Effect of each factor"),
    "explain_mistakes": Description("Grad-CAM of the worst mistakes: evidence for synthetic"),
    "explain_hits": Description("Grad-CAM of correctly classified images"),
    "spectra_maps": Description("Mean spectra of the real images and of each generator"),
    "spectra_radial": Description("Mean spectra by frequency"),
}
"""Figures by the stem of their file name, in the order in which they are shown. Any other figure
is described by its file name and comes last."""


def excerpt(table: pd.DataFrame, caption: str, path: str, note: str = "") -> Table:
    """Format a table and shorten it: a wide one to the main metrics, a long one to its first rows.

    Args:
        table: Content of the artifact, as text.
        caption: Caption.
        path: Path of the artifact, to which notes refer for what is left out.
        note: First note below the table.
    """
    notes = [note] if note else []
    shown = table
    if table.shape[1] > _COLUMNS:
        bases = {c: c.removesuffix("_low").removesuffix("_high") for c in map(str, table.columns)}
        shown = table[
            [c for c, base in bases.items() if base in MAIN_METRICS or base not in METRICS]
        ]
    if shown.shape[1] < table.shape[1]:
        notes.append(f"Other metrics are in {path}.")
    if len(table) > _ROWS:
        notes.append(f"The first {_ROWS} of {len(table):,} rows are shown; all are in {path}.")
    return Table(caption, format_table(shown.head(_ROWS)), " ".join(notes))


def figures(
    artifacts: Artifacts, paths: list[str], split: str, numbers: Mapping[str, str]
) -> tuple[Figure, ...]:
    """Take the figures at some paths, as far as they can be shown.

    Args:
        artifacts: Artifacts of the run.
        paths: Paths of the figures.
        split: Name of the split that they show, for the captions; empty for none.
        numbers: Known numbers by name, for the alternative texts.
    """
    made = []
    for path in sorted(paths, key=_rank):
        png = artifacts.take_figure(path)
        if png is not None:
            stem = PurePosixPath(path).stem
            description = DESCRIPTIONS.get(stem, Description(label(stem).capitalize()))
            caption = f"{description.caption}, {split}" if split else description.caption
            known = [f"{name} {numbers[name]}" for name in description.numbers if name in numbers]
            alt = f"{caption}: {', '.join(known)}" if known else caption
            made.append(Figure(caption, alt, png))
    return tuple(made)


def _rank(path: str) -> int:
    stem = PurePosixPath(path).stem
    return list(DESCRIPTIONS).index(stem) if stem in DESCRIPTIONS else len(DESCRIPTIONS)

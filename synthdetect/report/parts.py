"""Pieces that several sections are made of: tables cut to what can be read, figures with words."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath

import pandas as pd

from synthdetect.evaluation.metrics import METRICS
from synthdetect.report.page import Figure, Table
from synthdetect.report.record import Artifacts
from synthdetect.report.text import label, readable

MAIN = ("auc", "balanced_accuracy", "real_accuracy", "fake_accuracy", "f1", "eer", "ece")
"""Metrics that wide tables are limited to."""

_ROWS = 100
_COLUMNS = 8


@dataclass(frozen=True)
class Picture:
    """What a figure shows, and the numbers that say the same.

    Attributes:
        caption: what it shows.
        numbers: names of the numbers that its text for the blind gives.
    """

    caption: str
    numbers: tuple[str, ...] = ()


PICTURES: dict[str, Picture] = {
    "folds": Picture("The folds' metrics and their ROC curves", ("AUC of the folds",)),
    "learning_curves": Picture(
        "Loss and AUC of training and validation by epoch", ("chosen epoch", "validation AUC")
    ),
    "roc": Picture("ROC curve: synthetic images found by real images called synthetic", ("AUC",)),
    "precision_recall": Picture("Precision by recall", ("average precision",)),
    "scores": Picture("Histogram of the scores of real and synthetic images", ("threshold",)),
    "generators": Picture("AUC of each generator", ("lowest generator", "highest generator")),
    "confusion": Picture(
        "Confusion matrix: what images are and what they are called",
        ("accuracy", "real accuracy", "fake accuracy"),
    ),
    "reliability": Picture("Share that is synthetic by the probability that was given", ("ECE",)),
    "worst_mistakes": Picture("The images furthest on the wrong side", ("accuracy",)),
    "robustness": Picture("AUC, real and fake accuracy by the strength of each change"),
    "robustness_generators": Picture("AUC of each generator under each change"),
    "effects": Picture("What each change does by itself"),
    "explain_mistakes": Picture("Grad-CAM of the worst mistakes: what spoke for synthetic"),
    "explain_hits": Picture("Grad-CAM of right answers"),
    "spectra_maps": Picture("Mean spectra of the real images and of each generator"),
    "spectra_radial": Picture("Mean spectra by frequency"),
}
"""Figures by the name of their file, in the order in which they are shown; others are called by
that name and come last."""


def excerpt(table: pd.DataFrame, caption: str, path: str, note: str = "") -> Table:
    """A table as it can be read: rounded, and of many metrics and rows the main and first ones.

    Args:
        table: as text, as it stands in the artifact.
        caption: what it shows.
        path: of the artifact, where all of it is.
        note: what else to say under it.
    """
    notes = [note] if note else []
    shown = table
    if table.shape[1] > _COLUMNS:
        bases = {c: c.removesuffix("_low").removesuffix("_high") for c in map(str, table.columns)}
        shown = table[[c for c, base in bases.items() if base in MAIN or base not in METRICS]]
    if shown.shape[1] < table.shape[1]:
        notes.append(f"Further metrics are in {path}.")
    if len(table) > _ROWS:
        notes.append(f"The first {_ROWS} of {len(table):,} rows; all are in {path}.")
    return Table(caption, readable(shown.head(_ROWS)), " ".join(notes))


def figures(
    artifacts: Artifacts, paths: list[str], where: str, numbers: Mapping[str, str]
) -> tuple[Figure, ...]:
    """The pictures under these paths, those that can be shown.

    Args:
        artifacts: which have them.
        paths: to take.
        where: of which images, for the captions.
        numbers: what is known of them, by name, for the texts for the blind.
    """
    made = []
    for path in sorted(paths, key=_place):
        png = artifacts.take_figure(path)
        if png is not None:
            stem = PurePosixPath(path).stem
            picture = PICTURES.get(stem, Picture(label(stem).capitalize()))
            caption = f"{picture.caption}, {where}" if where else picture.caption
            known = [f"{name} {numbers[name]}" for name in picture.numbers if name in numbers]
            alt = f"{caption}: {', '.join(known)}" if known else caption
            made.append(Figure(caption, alt, png))
    return tuple(made)


def _place(path: str) -> int:
    stem = PurePosixPath(path).stem
    return list(PICTURES).index(stem) if stem in PICTURES else len(PICTURES)

"""A comparison in a terminal, in lines of at most 80 columns unless a cell is longer by itself."""

from collections.abc import Sequence

import pandas as pd
from rich.table import Table

from synthdetect.comparison.compare import Comparison, SplitComparison
from synthdetect.comparison.contenders import Contender
from synthdetect.comparison.curves import curves_text
from synthdetect.comparison.words import (
    MAIN,
    changed_words,
    disagreement_cells,
    metric_cells,
    verdicts,
)
from synthdetect.system.console import console
from synthdetect.system.visible import visible

_SHOWN_IMAGES = 10
_CELLS, _LEAST_CELL = 48, 9  # characters for the values of a setting, and for one of them


def show(comparison: Comparison) -> None:
    """Print a comparison."""
    for one in comparison.contenders:
        console.print(f"{one.letter}  {one.name}  ({one.kind or 'run'} {one.run_id}, {one.status})")
    for note in comparison.notes:
        console.print(note, style="bold yellow")
    _settings("What differs in the configuration", comparison.configuration, "the same options")
    _settings("What differs in the data", comparison.data, "the same data")
    for sentence in changed_words(comparison):
        console.print(sentence)
    _settings("What differs in the environment", comparison.environment, "the same environment")
    for split in comparison.splits:
        _split(split, comparison.contenders)
    for name, what in (("val/auc", "validation AUC"), ("val/loss", "validation loss")):
        lines = curves_text(comparison.contenders, name)
        if lines:
            console.print(f"\nLearning curves: {what} by epoch (* several runs)", style="bold")
            console.print("\n".join(lines))


def _settings(title: str, rows: pd.DataFrame, otherwise: str) -> None:
    console.print(f"\n{title}", style="bold")
    if rows.empty:
        console.print(f"Nothing: {otherwise}, as far as recorded.")
        return
    shown = Table()
    letters = [column for column in rows if column not in ("setting", "may_change")]
    width = max(_LEAST_CELL, _CELLS // len(letters) - 3)
    shown.add_column("setting", overflow="fold")
    for letter in letters:
        shown.add_column(letter, overflow="fold", max_width=width)
    for row in rows.to_dict(orient="records"):
        shown.add_row(row["setting"], *(_cell(row[letter], 3 * width) for letter in letters))
    console.print(shown, soft_wrap=False)


def _cell(text: str, most: int) -> str:
    shown = visible(text or "none")
    return shown if len(shown) <= most else f"{shown[: most - 1]}…"


def _split(split: SplitComparison, contenders: Sequence[Contender]) -> None:
    first, *others = [one.letter for one in contenders]
    shared = split.shared
    console.print(
        f"\nOn the same {shared.images:,} images of {visible(split.split)}, "
        f"95 % intervals by {shared.unit}",
        style="bold",
    )
    for other in others:
        shown = Table()
        for column in ("", first, other, f"{other} - {first} [95 %]"):
            shown.add_column(column, justify="left" if not column else "right", overflow="fold")
        for name, a, b, change in metric_cells(split.metrics, first, other, MAIN):
            shown.add_row(visible(name), a, b, change)
        console.print(shown, soft_wrap=False)
    for sentence in verdicts(split, first):
        console.print(sentence)
    _disagreements(split, contenders)


def _disagreements(split: SplitComparison, contenders: Sequence[Contender]) -> None:
    count = len(split.disagreements)
    if not count:
        console.print("The runs give the same answer to every image.")
        return
    limited = f"; the first {_SHOWN_IMAGES}" if count > _SHOWN_IMAGES else ""
    share = count / split.shared.images
    console.print(f"Different answers to {count:,} images ({share:.0%}){limited}:")
    shown = Table()
    shown.add_column("image", overflow="fold")
    shown.add_column("label")
    for one in contenders:
        shown.add_column(one.letter, justify="right", no_wrap=True)
    for position in split.disagreements[:_SHOWN_IMAGES]:
        shown.add_row(*map(visible, disagreement_cells(split, position)))
    console.print(shown, soft_wrap=False)

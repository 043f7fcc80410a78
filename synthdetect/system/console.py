"""What a person sees while something runs: bars in a terminal, lines elsewhere."""

import math
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table

from synthdetect.system.visible import visible


class _Plain(Console):
    """Prints text as it is: names from the data are no markup, and command no terminal."""

    def print(self, *objects: Any, **options: Any) -> None:
        shown = (visible(thing) if isinstance(thing, str) else thing for thing in objects)
        super().print(*shown, **options)


console = _Plain(
    highlight=False, markup=False, emoji=False, soft_wrap=True,
    width=None if sys.stdout.isatty() else 120,
)  # fmt: skip
_LINE_EVERY = 30.0  # seconds between progress lines where there is no terminal


@contextmanager
def counting(what: str, unit: str = "images") -> Iterator["Counter"]:
    """Show how much of something is done."""
    with _progress(unit) as progress:
        counter = Counter(progress, what)
        yield counter


class Counter:
    """A bar that appears with the first thing done."""

    def __init__(self, progress: Progress, what: str) -> None:
        self._progress, self._what = progress, what
        self._task: TaskID | None = None
        self._said = time.monotonic()

    def __call__(self, done: int, total: int) -> None:
        if self._task is None:
            self._task = self._progress.add_task(self._what, total=total, note="")
        self._progress.update(self._task, completed=done, total=total)
        if not console.is_terminal and time.monotonic() - self._said > _LINE_EVERY:
            self._said = time.monotonic()
            console.print(f"{self._what}: {done:,} of {total:,}")


class TrainingBar:
    """Epoch, loss, validation AUC, images a second and the time left for all epochs."""

    def __init__(self, progress: Progress, epochs: int, done: int, images: int, all_epochs: int):
        self._progress = progress
        self._epochs, self._epoch = all_epochs, done
        self._images = images
        self._auc = math.nan
        self._began, self._seen = time.monotonic(), 0
        self._task = progress.add_task(
            "", total=all_epochs * images, completed=done * images, note=""
        )
        self._start(done + 1)

    def batch(self, images: int, loss: float) -> None:
        """Count a batch."""
        self._seen += images
        speed = self._seen / max(time.monotonic() - self._began, 1e-9)
        note = f"{speed:.1f} images/s"
        if not math.isnan(loss):
            self._loss = loss
        if hasattr(self, "_loss"):
            note = f"loss {self._loss:.4f}  " + note
        if not math.isnan(self._auc):
            note = f"val AUC {self._auc:.4f}  " + note
        self._progress.update(self._task, advance=images, note=note)

    def epoch(self, number: int, record: dict[str, float], best: bool) -> None:
        """Say how an epoch went."""
        self._auc = record.get("val/auc", math.nan)
        shown = {
            name: " / ".join(
                f"{record[f'{split}/{name}']:.4f}"
                for split in ("train", "val")
                if f"{split}/{name}" in record
            )
            for name in ("loss", "auc")
        }
        mark = "  best so far" if best and "val/auc" in record else ""
        console.print(
            f"epoch {number:>3}/{self._epochs}  loss {shown['loss']}  AUC {shown['auc']}  "
            f"{record['images_per_second']:.1f} images/s{mark}"
        )
        self._start(number + 1)

    def _start(self, epoch: int) -> None:
        text = f"epoch {min(epoch, self._epochs)}/{self._epochs}"
        self._progress.update(self._task, description=text)


@contextmanager
def training_bar(epochs: int, done: int, images: int) -> Iterator[TrainingBar]:
    """Show a training of so many epochs, of which some are done, of so many images each."""
    with _progress("images") as progress:
        console.print("            train / validation", style="dim")
        yield TrainingBar(progress, epochs, done, images, epochs)


def table(title: str, columns: list[str], rows: list[list[str]]) -> None:
    """Print a small table; all columns but the first are numbers."""
    result = Table(title=visible(title), title_justify="left")
    for number, column in enumerate(columns):
        result.add_column(visible(column), justify="left" if number == 0 else "right", no_wrap=True)
    for row in rows:
        result.add_row(*map(visible, row))
    console.print(result, soft_wrap=False)


def _progress(unit: str) -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn(unit),
        TextColumn("{task.fields[note]}"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )

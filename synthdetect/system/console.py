"""Console output: progress bars in a terminal, plain lines elsewhere."""

import logging
import math
import sys
import threading
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

from synthdetect.system.timetable import Timetable, current, duration, in_all
from synthdetect.system.visible import visible

_WARNINGS = ("bold yellow", "bold red")
"""Styles of texts that are warnings, which `--quiet` prints too."""


class _Plain(Console):
    """Console that prints text literally: no markup, and no terminal commands from names."""

    only_warnings = False

    def print(self, *objects: Any, **options: Any) -> None:
        if self.only_warnings and options.get("style") not in _WARNINGS:
            return
        shown = (visible(item) if isinstance(item, str) else item for item in objects)
        super().print(*shown, **options)


console = _Plain(
    highlight=False, markup=False, emoji=False, soft_wrap=True,
    width=None if sys.stdout.isatty() else 120,
)  # fmt: skip
_LINE_INTERVAL = 30.0  # seconds between progress lines if the output is not a terminal
_MOMENT = 2.0  # seconds for which nobody asks what is waited for


@contextmanager
def only_warnings() -> Iterator[None]:
    """Print warnings only, here and in the logs of the libraries."""
    console.only_warnings = True
    logging.disable(logging.INFO)
    try:
        yield
    finally:
        console.only_warnings = False
        logging.disable(logging.NOTSET)


@contextmanager
def waiting(what: str) -> Iterator[None]:
    """Say what is waited for, if it takes longer than a moment, and how long it took.

    Args:
        what: What the program waits for: "the tracking store ... is away".
    """
    began, said = time.monotonic(), threading.Event()

    def say() -> None:
        if not said.wait(_MOMENT):
            console.print(f"waiting: {what}")
            said.set()

    thread = threading.Thread(target=say, daemon=True)
    thread.start()
    try:
        yield
    finally:
        late = said.is_set()
        said.set()
        thread.join()
        if late:
            console.print(f"waited {duration(time.monotonic() - began)}")


@contextmanager
def counting(what: str, unit: str = "images", *, planned: bool = False) -> Iterator["Counter"]:
    """Show the progress of a task whose items can be counted.

    Args:
        what: Description of the task.
        unit: What is counted.
        planned: Whether the task is the part of the command's timetable that is under way, whose
            work is measured in what is counted here.

    Yields:
        A counter, to be called with the number of items done and their total.
    """
    with _progress(unit) as progress:
        counter = Counter(progress, what, current() if planned else Timetable(()))
        yield counter


class Counter:
    """Progress of one task. Its bar appears with the first call."""

    def __init__(self, progress: Progress, what: str, plan: Timetable) -> None:
        self._progress, self._what, self._plan = progress, what, plan
        self._task: TaskID | None = None
        self._began = self._printed = time.monotonic()
        self._first = self._done = 0

    def __call__(self, done: int, total: int) -> None:
        now = time.monotonic()
        if self._task is None:
            self._task = self._progress.add_task(self._what, total=total, note="")
            self._began, self._first = now, done  # of which an earlier process did some
            self._plan.skip(done)
        else:
            self._plan.advance(done - self._done)
        self._done = done
        note = in_all().removeprefix(", ") if current().remaining else ""
        self._progress.update(self._task, completed=done, total=total, note=note)
        if not console.is_terminal and now - self._printed > _LINE_INTERVAL:
            self._printed = now
            line = f"{self._what}: {done:,} of {total:,}"
            if done > self._first:
                seconds = (now - self._began) / (done - self._first) * (total - done)
                line += f", {duration(seconds)} left"
            console.print(f"{line}; {note}" if note else line)


class TrainingBar:
    """Progress of a training: epoch, loss, validation AUC, images per second and remaining time.

    Args:
        progress: Display that holds the bar.
        epochs: Number of epochs.
        done: Epochs that are already done.
        images: Images per epoch.
    """

    def __init__(self, progress: Progress, epochs: int, done: int, images: int) -> None:
        self._progress = progress
        self._epochs, self._images = epochs, images
        self._loss = self._auc = math.nan
        self._began, self._seen = time.monotonic(), 0
        self._task = progress.add_task("", total=epochs * images, completed=done * images, note="")
        current().skip(done)
        self._start(done + 1)

    def batch(self, images: int, loss: float) -> None:
        """Advance by a batch.

        Args:
            images: Number of images in the batch.
            loss: Mean loss; nan leaves the last one on display.
        """
        self._seen += images
        current().advance(images / self._images)
        speed = self._seen / max(time.monotonic() - self._began, 1e-9)
        note = f"{speed:.1f} images/s"
        if not math.isnan(loss):
            self._loss = loss
        if not math.isnan(self._loss):
            note = f"loss {self._loss:.4f}  " + note
        if not math.isnan(self._auc):
            note = f"val AUC {self._auc:.4f}  " + note
        self._progress.update(self._task, advance=images, note=note + in_all())

    def epoch(self, number: int, record: dict[str, float], best: bool) -> None:
        """Print a line with the results of an epoch.

        Args:
            number: Number of the epoch, from 1.
            record: Metrics of the epoch.
            best: Whether it is the best epoch so far.
        """
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
            f"{record['images_per_second']:.1f} images/s{mark}{in_all()}"
        )
        self._start(number + 1)

    def _start(self, epoch: int) -> None:
        text = f"epoch {min(epoch, self._epochs)}/{self._epochs}"
        self._progress.update(self._task, description=text)


@contextmanager
def training_bar(epochs: int, done: int, images: int) -> Iterator[TrainingBar]:
    """Show the progress of a training.

    Args:
        epochs: Number of epochs.
        done: Epochs that are already done.
        images: Images per epoch.
    """
    with _progress("images") as progress:
        console.print("            train / validation", style="dim")
        yield TrainingBar(progress, epochs, done, images)


def table(title: str, columns: list[str], rows: list[list[str]]) -> None:
    """Print a small table. All columns but the first are aligned to the right, as numbers."""
    console.print(visible(title), style="bold")  # a title of the table would wrap at its width
    result = Table()
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
        disable=not console.is_terminal or console.only_warnings,
    )

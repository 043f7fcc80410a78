"""One training of a sweep in its own run: curves as it goes, and what it cost."""

import ctypes
import gc
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil
import torch

from synthdetect.config import TrainOptions
from synthdetect.console import training_bar
from synthdetect.data.prepare import Prepared
from synthdetect.evaluation.metrics import Floats
from synthdetect.tracking.run import Run
from synthdetect.training.devices import Device, deterministic
from synthdetect.training.loop import Progress, Training
from synthdetect.training.session import Session

_SAMPLED = 0.05  # seconds between looks at the memory in use


@dataclass(frozen=True)
class Trained:
    """What one training came to.

    Attributes:
        progress: with the record of every epoch.
        logits: the best epoch's, by split, in the manifest's order.
        seconds_per_image: of training, the median over epochs.
        peak_mib: most memory that it added to what the process had, in MiB.
    """

    progress: Progress
    logits: dict[str, Floats]
    seconds_per_image: float
    peak_mib: float

    @property
    def best(self) -> dict[str, float]:
        """The record of the chosen epoch."""
        return self.progress.history[self.progress.best_epoch - 1]


def train_in(
    run: Run,
    options: TrainOptions,
    prepared: Prepared,
    device: Device,
    folder: Path,
    *,
    after: int = 0,
    splits: tuple[str, ...] = (),
    watch: Callable[[Progress], None] = lambda progress: None,
) -> Trained:
    """Train, and log each epoch; goes on where `folder` says it was.

    Args:
        run: to log to.
        options: of the training.
        prepared: its data.
        device: what computes.
        folder: for checkpoints; whoever calls removes it in the end.
        after: steps of what the run did before.
        splits: to score in the end.
        watch: told of every epoch once it is logged; may raise to stop.

    Raises:
        Diverged: the loss became infinite or undefined.
    """
    with deterministic(options.seed), _peak_memory(device) as peak:
        session = Session(options, prepared, device, folder)
        done = session.training.progress
        run.log_history(done.history, {}, after=after)
        images = sum(len(prepared.manifest.split(split)) for split in ("train", "val"))
        with training_bar(options.epochs, done.epoch, images) as bar:

            def on_epoch(training: Training) -> None:
                progress = training.progress
                run.log_epoch(progress.history[-1], after + progress.epoch, {})
                bar.epoch(progress.epoch, progress.history[-1], progress.improved)
                watch(progress)

            session.fit(options.epochs, on_batch=bar.batch, on_epoch=on_epoch)
        logits = session.score(splits)
    progress = session.training.progress
    speed = float(np.median([record["images_per_second"] for record in progress.history]))
    return Trained(progress, logits, 1 / speed, peak[0])


def _give_back_memory() -> None:
    """Have glibc return what earlier trainings freed; else later ones would seem to need less."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if os.name == "posix" else None
    if trim:
        trim(0)


@contextmanager
def _peak_memory(device: Device) -> Iterator[list[float]]:
    """Measure what is added to the memory in use, in MiB; the list holds it afterwards.

    On CUDA it is what torch allocated; elsewhere the process's resident memory, looked at often,
    since the system's own peak would be that of all trainings before.
    """
    result = [float("nan")]
    gc.collect()
    if device.kind == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        yield result
        result[0] = (torch.cuda.max_memory_allocated() - before) / 2**20
        return
    _give_back_memory()
    process, stop = psutil.Process(), threading.Event()
    before = most = process.memory_info().rss

    def look() -> None:
        nonlocal most
        while not stop.wait(_SAMPLED):
            most = max(most, process.memory_info().rss)

    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    try:
        yield result
    finally:
        stop.set()
        thread.join()
        result[0] = (most - before) / 2**20

"""The trainings of a sweep, each in its own run: curves as it goes, what it cost, and what it takes
to do it again.
"""

import ctypes
import gc
import hashlib
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil
import torch

from sweeps.setting import Setting
from synthdetect.config import TrainOptions
from synthdetect.datasets.prepare import Prepared
from synthdetect.evaluation.decision import decide
from synthdetect.evaluation.predictions import tabulate
from synthdetect.models.tensors import digest_of, tensors_of
from synthdetect.runs.training import CONFIG
from synthdetect.system.arrays import FloatArray
from synthdetect.system.console import training_bar
from synthdetect.tracking.run import WEIGHTS, Run, environment
from synthdetect.training.devices import Device, deterministic
from synthdetect.training.loop import Progress, TrainingState
from synthdetect.training.session import Session

FINAL_FOLD = "final.fold"
"""Parameter of a final training's run: which fold of the final part validates, counted from 0."""

_SAMPLED = 0.05  # seconds between looks at the memory in use


@dataclass(frozen=True)
class Trained:
    """What one training came to.

    Attributes:
        progress: with the record of every epoch.
        logits: the best epoch's, by split, in the manifest's order.
        seconds_per_image: of training, the median over epochs.
        peak_mib: most memory that it added to what the process had, in MiB.
        digest: SHA-256 of the best epoch's weights.
    """

    progress: Progress
    logits: dict[str, FloatArray]
    seconds_per_image: float
    peak_mib: float
    digest: str

    @property
    def best(self) -> dict[str, float]:
        """The record of the chosen epoch."""
        return self.progress.history[self.progress.best_epoch - 1]


def tune_in(
    run: Run,
    options: TrainOptions,
    setting: Setting,
    device: Device,
    folder: Path,
    *,
    report: Callable[[float, int], None] = lambda value, step: None,
) -> float:
    """Train once a fold of the tuning part, one after the other in one run.

    Args:
        run: to log to.
        options: of the training.
        setting: of the sweep.
        device: what computes.
        folder: for checkpoints.
        report: told, of every epoch, the mean over folds of the best validation AUC so far, and
            the step; may raise to stop.

    Returns:
        That mean in the end.
    """
    parts = [setting.data(manifest, options) for manifest in setting.splits.tuning]
    _log_setting(run, options, parts, device)
    best: list[float] = []
    digests: list[str] = []
    for fold, part in enumerate(parts):
        after = fold * options.epochs

        def watch(progress: Progress, after: int = after) -> None:
            report(float(np.mean([*best, progress.best_auc])), after + progress.epoch)

        trained = train_in(
            run, options, part, device, folder / f"fold-{fold}", after=after, watch=watch
        )
        best.append(trained.progress.best_auc)
        digests.append(trained.digest)
    value = float(np.mean(best))
    run.log_metrics({"trial/value": value})
    run.set_tags({WEIGHTS: ",".join(digests)})
    return value


def fit_finally(
    run: Run, options: TrainOptions, setting: Setting, device: Device, fold: int, folder: Path
) -> float:
    """One final training, scored on the test.

    Args:
        run: to log to.
        options: of the training.
        setting: of the sweep.
        device: what computes.
        fold: of the final part, which one validates; counted from 0.
        folder: for checkpoints.

    Returns:
        The best validation AUC.
    """
    part = setting.data(setting.splits.final[fold], options)
    _log_setting(run, options, [part], device)
    run.log_params({FINAL_FOLD: fold})
    splits = ("train", "val", "test")
    trained = train_in(run, options, part, device, folder, splits=splits)
    val = part.manifest.split("val").table
    decision = decide(options, val["label"], trained.logits["val"])
    for split, raw in trained.logits.items():
        rows = part.manifest.split(split).table
        table = tabulate(rows, decision.calibration(raw), decision.threshold, raw)
        run.log_table(table, f"predictions/{split}.csv")
    run.log_metrics(
        {
            "final/seconds_per_image": trained.seconds_per_image,
            "final/peak_mib": trained.peak_mib,
            "decision/threshold": decision.threshold,
            "best/epoch": float(trained.progress.best_epoch),
        }
    )
    run.set_tags({WEIGHTS: trained.digest})
    return trained.progress.best_auc


def digest_of_parts(parts: Sequence[Prepared]) -> str:
    """What stands for the data of a run's trainings."""
    return hashlib.sha256(" ".join(part.digest() for part in parts).encode()).hexdigest()


def _log_setting(
    run: Run, options: TrainOptions, parts: Sequence[Prepared], device: Device
) -> None:
    facts = {f"hardware.{name}": value for name, value in device.describe().items()}
    digest = digest_of_parts(parts)
    run.log_params({**options.to_flat(), **facts, **environment(), "data.digest": digest})
    run.log_json({"options": options.to_json(), "digest": digest}, CONFIG)


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
        run.log_params({"model.start": session.start.source,
                        "model.start_detail": session.start.detail})  # fmt: skip
        run.log_history(done.history, {}, after=after)
        images = sum(len(prepared.manifest.split(split)) for split in ("train", "val"))
        with training_bar(options.epochs, done.epoch, images) as bar:

            def on_epoch(training: TrainingState) -> None:
                progress = training.progress
                run.log_progress(progress.history, {}, after=after)
                bar.epoch(progress.epoch, progress.history[-1], progress.improved)
                watch(progress)

            session.fit(options.epochs, on_batch=bar.batch, on_epoch=on_epoch)
        logits = session.score(splits)
    progress = session.training.progress
    speed = float(np.median([record["images_per_second"] for record in progress.history]))
    return Trained(progress, logits, 1 / speed, peak[0], digest_of(tensors_of(session.network)))


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

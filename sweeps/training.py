"""The trainings of a sweep, each in its own run: tuning trials and final fits."""

import ctypes
import gc
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import psutil
import torch

from sweeps.kinds import RUN_KINDS
from sweeps.setting import Setting
from synthdetect.models.tensors import digest_of, tensors_of
from synthdetect.runs.options import TrainOptions
from synthdetect.runs.setting import digest_of_several, log_setting
from synthdetect.runs.training import run_training, train_network
from synthdetect.tracking.run import Run
from synthdetect.tracking.tags import WEIGHTS
from synthdetect.training.devices import Device
from synthdetect.training.loop import Hooks, TrainingState

FINAL_DIVISION, FINAL_FOLD = "final.division", "final.fold"
"""Parameters of the run of a final fit: a division of the final part, and its fold that validates,
both counted from 0."""

_SAMPLING_SECONDS = 0.05  # between two readings of the memory in use


def tune_in(
    run: Run,
    options: TrainOptions,
    setting: Setting,
    device: Device,
    folder: Path,
    *,
    report: Callable[[float, int], None] = lambda value, step: None,
) -> float:
    """Train on each tuning fold, one after the other in one run.

    Args:
        run: The run to log to.
        options: The options of the training.
        setting: The setting of the sweep.
        device: The device that computes.
        folder: Folder for checkpoints, which the caller removes.
        report: Called after each epoch with the mean over folds of the best validation AUC so far,
            and the step; it may raise to stop the trial.

    Returns:
        That mean in the end.
    """
    parts = [setting.data(manifest, options) for manifest in setting.splits.tuning]
    log_setting(run, options, digest=digest_of_several(parts), device=device)
    best: list[float] = []
    digests: list[str] = []

    class Reporting(Hooks):
        def on_epoch(self, training: TrainingState) -> None:
            value = float(np.mean([*best, training.progress.best_auc]))
            report(value, len(best) * options.optim.epochs + training.progress.epoch)

    for fold, part in enumerate(parts):
        session = train_network(
            run,
            options,
            part,
            device,
            folder / f"fold-{fold}",
            hooks=Reporting(),
            after=fold * options.optim.epochs,
        )
        best.append(session.training.progress.best_auc)
        digests.append(digest_of(tensors_of(session.network)))
    value = float(np.mean(best))
    run.log_metrics({"trial/value": value})
    run.set_tags({WEIGHTS: ",".join(digests)})
    return value


def fit_finally(
    run: Run, options: TrainOptions, setting: Setting, device: Device, division: int, fold: int
) -> float:
    """Run one final fit and score it on the test split; its run logs a model like any training.

    Args:
        run: The run to log to.
        options: The options of the training.
        setting: The setting of the sweep.
        device: The device that computes.
        division: A division of the final part into folds, counted from 0.
        fold: The fold of it that validates, counted from 0.

    Returns:
        The best validation AUC.
    """
    part = setting.data(setting.splits.final[division][fold], options)
    run.log_params({FINAL_DIVISION: division, FINAL_FOLD: fold})
    peak: list[float] = []
    result = run_training(
        run,
        options,
        part,
        device,
        kind=RUN_KINDS["final"],
        measuring=_peak_memory(device, peak),
        score_train=True,
    )
    progress = result.training.progress
    speed = float(np.median([metrics["images_per_second"] for metrics in progress.history]))
    run.log_metrics({"final/seconds_per_image": 1 / speed, "final/peak_mib": peak[0]})
    return progress.best_auc


def _release_memory() -> None:
    """Make glibc return the memory that earlier trainings freed, so that it is not counted."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if os.name == "posix" else None
    if trim:
        trim(0)


@contextmanager
def _peak_memory(device: Device, result: list[float]) -> Iterator[None]:
    """Measure the peak of the memory in use above that at the beginning, and append it in MiB.

    On CUDA it is what torch allocated; elsewhere it is the resident memory of the process, read at
    short intervals, because the peak of the system covers all earlier trainings too.
    """
    gc.collect()
    if device.kind == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        yield
        result.append((torch.cuda.max_memory_allocated() - before) / 2**20)
        return
    _release_memory()
    process, stop = psutil.Process(), threading.Event()
    before = most = process.memory_info().rss

    def sample() -> None:
        nonlocal most
        while not stop.wait(_SAMPLING_SECONDS):
            most = max(most, process.memory_info().rss)

    thread = threading.Thread(target=sample, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
        result.append((most - before) / 2**20)

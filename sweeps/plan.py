"""What a sweep would do, and about how long: from one measured step of each side."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import torch

from sweeps.strategies import space
from synthdetect.models.networks import build
from synthdetect.runs.options import TrainOptions
from synthdetect.system.console import console, table
from synthdetect.training.devices import Device, deterministic
from synthdetect.training.loop import start_training, train_epoch
from synthdetect.training.objective import Step

if TYPE_CHECKING:
    from sweeps.study import Sweep


def show_plan(sweep: Sweep) -> None:
    """Print trainings and minutes a side, pruning and early stopping left out."""
    options = sweep.options
    tuning = [len(manifest.split("train")) for manifest in sweep.splits.tuning]
    final = [len(manifest.split("train")) for manifest in sweep.splits.final]
    images = options.optim.epochs * (options.trials * sum(tuning) + options.seeds * sum(final))
    rows, total = [], 0.0
    for side in sweep.names:
        first = {name: parameter.first for name, parameter in space(side, options.optim.lr).items()}
        training = sweep.training(side, first, options.optim.seed)
        seconds = step_seconds(training, sweep.device_for(training))
        minutes = seconds / options.optim.batch_size * images / 60
        total += minutes
        trainings = options.trials * len(tuning), options.seeds * len(final)
        rows.append([side, *map(str, trainings), f"{1000 * seconds:.0f}", f"{minutes:.1f}"])
    table(
        f"{options.study}: {len(sweep.names)} sides, {options.optim.epochs} epochs a training",
        ["side", "in tuning", "final", "ms a step", "minutes"],
        rows,
    )
    console.print(
        f"about {total:.0f} minutes of steps in all, by one process; validation and reading come "
        "on top, and pruning and early stopping take off"
    )


def step_seconds(options: TrainOptions, device: Device) -> float:
    """Seconds of one training step on made-up images, the second of two."""
    size, count = options.image.image_size, options.optim.batch_size
    with deterministic(options.optim.seed):
        network = build(options.model.arch, size)
        training = start_training(network, device, options)
        images = (torch.rand(count, 3, size, size) * 255).to(device.torch)
        images = images.contiguous(memory_format=torch.channels_last)
        targets = (torch.arange(count, device=device.torch) % 2).float()
        # Past the share of epochs after which an attack begins.
        step = Step(images, targets, float(options.optim.epochs), images)
        train_epoch(training, [step], lambda images, loss: None)
        began = time.perf_counter()
        train_epoch(training, [step], lambda images, loss: None)
        return time.perf_counter() - began

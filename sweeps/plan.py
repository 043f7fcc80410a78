"""The dry run of a sweep: its trainings, and an estimate of their time."""

import time

import torch

from sweeps.setting import Setting
from sweeps.strategies import first_values, space
from synthdetect.models.networks import build
from synthdetect.runs.options import TrainOptions
from synthdetect.system.console import console, table
from synthdetect.training.devices import Device, deterministic
from synthdetect.training.loop import Hooks, start_training, train_epoch
from synthdetect.training.objective import Step
from synthdetect.training.session import model_spec


def show_plan(setting: Setting) -> None:
    """Print the trainings of each side and their minutes without pruning or early stopping.

    The estimate is the time of one training step, measured for each side.
    """
    options = setting.options
    tuning = [len(manifest.split("train")) for manifest in setting.splits.tuning]
    final = [len(manifest.split("train")) for manifest in setting.splits.final]
    images = options.optim.epochs * (
        options.study.trials * sum(tuning) + options.study.seeds * sum(final)
    )
    rows, total = [], 0.0
    for side in setting.sides:
        training = setting.training(
            side, first_values(space(side, options.optim.lr)), options.optim.seed
        )
        seconds = step_seconds(training, setting.device_for(training))
        minutes = seconds / options.optim.batch_size * images / 60
        total += minutes
        trainings = options.study.trials * len(tuning), options.study.seeds * len(final)
        rows.append([side, *map(str, trainings), f"{1000 * seconds:.0f}", f"{minutes:.1f}"])
    table(
        f"{options.study.study}: {len(setting.sides)} sides, {options.optim.epochs} epochs each",
        ["side", "trainings in tuning", "final fits", "ms per step", "minutes"],
        rows,
    )
    console.print(
        f"The training steps take about {total:.0f} minutes in all on one process. Validation and "
        "reading of images add to that; pruning and early stopping save time."
    )


def step_seconds(options: TrainOptions, device: Device) -> float:
    """Measure the seconds of one training step on random images, the second of two steps."""
    size, count = options.image.image_size, options.optim.batch_size
    with deterministic(options.optim.seed):
        training = start_training(build(model_spec(options)), device, options)
        images = (torch.rand(count, 3, size, size) * 255).to(device.torch)
        images = images.contiguous(memory_format=torch.channels_last)
        targets = (torch.arange(count, device=device.torch) % 2).float()
        # Adversarial training starts only after a share of the epochs.
        step = Step(images, targets, float(options.optim.epochs), images)
        train_epoch(training, [step], Hooks())
        began = time.perf_counter()
        train_epoch(training, [step], Hooks())
        return time.perf_counter() - began

"""The training step by itself: what keeping freed memory is worth, and the step by operator.

    python -m benchmarks.step [--arch resnet18] [--image-size 224] [--rounds 10]

The setting of the C library is that of a whole process, so each contender is a process of its own
that waits while the other one computes. A round is an epoch in memory with a last batch of another
size, and the scoring of a validation batch. Both must end with the same weights, bit for bit, and
the memory of the process that keeps freed memory must not grow from the second round to the last.
"""

import json
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

from benchmarks.common import Contender, parser, ratio, report, row_of, take_turns
from benchmarks.training import some_images
from synthdetect.images.batches import Batches, ImageFiles, Order
from synthdetect.models.networks import build
from synthdetect.models.tensors import digest_of, tensors_of
from synthdetect.runs.options import TrainOptions
from synthdetect.runs.preflight import resolve_device
from synthdetect.system.allocation import keep_freed_memory
from synthdetect.training.devices import deterministic
from synthdetect.training.loop import (
    Hooks,
    TrainingData,
    predict,
    start_training,
    steps_of,
    train_epoch,
)
from synthdetect.training.session import model_spec, preprocessing

_OPERATORS = 12  # the costliest, which the page shows


def main() -> None:
    arguments = parser("Measure the training step.", rounds=10)
    arguments.add_argument("--arch", default="resnet18")
    arguments.add_argument("--image-size", type=int, default=224)
    arguments.add_argument("--images", type=int, default=80, help="images per epoch")
    given = arguments.parse_args()
    if given.smoke:
        given.images, given.image_size, given.rounds = 20, 32, 2
    values = {"arch": given.arch, "image_size": given.image_size, "seed": 0, "workers": "0"}
    device = resolve_device(TrainOptions.resolve(values).device, given.arch)
    contenders = {
        name: Contender(_contender, values, given.images, name == "kept")
        for name in ("kept", "default")
    }
    speeds = take_turns({name: one.work for name, one in contenders.items()}, given.rounds)
    ends = {name: one.end() for name, one in contenders.items()}
    if ends["kept"] != ends["default"]:
        raise SystemExit("the weights differ: keeping freed memory has changed a result")
    memory = contenders["kept"].memory[1:]  # without the round that warms up
    operators = _profiled(values, given.images)
    what = f"{given.arch} at {given.image_size}, {device.precision}"
    rows: list[dict[str, Any]] = [
        {
            "key": "kept_to_default",
            "what": f"{what}: steps in memory, freed memory kept",
            "against": "glibc's defaults, the same weights",
            "wanted": 1.0,
            **ratio(speeds, "kept", "default"),
            "images_per_second": speeds,
        },
        row_of(
            "memory",
            f"resident memory after the second round, {memory[0]:.0f} MiB",
            f"after the last one, {memory[-1]:.0f} MiB",
            0.95,
            [memory[0] / memory[-1]],
        ),
    ]
    notes = (
        f"{given.images} images in memory per epoch, {given.rounds} rounds, batch 32; two "
        "processes take turns; the table of operators is of one step"
    )
    name = f"step_{given.arch}"
    report(name, "step", rows, device, given.output, notes)
    file = given.output / f"{name}.json"
    result = {**json.loads(file.read_text()), "operators": operators}
    file.write_text(json.dumps(result, indent=2) + "\n")


@contextmanager
def _contender(
    values: dict[str, Any], images: int, kept: bool
) -> Iterator[tuple[Callable[[], int], Callable[[], str]]]:
    if kept:
        keep_freed_memory()
    with deterministic(0):
        epoch, network = _epoch(values, images)
        yield epoch, lambda: digest_of(tensors_of(network))


def _epoch(values: dict[str, Any], count: int) -> tuple[Callable[[], int], torch.nn.Module]:
    """Return a function that trains and validates on images in memory, and its network."""
    options = TrainOptions.resolve(values)
    device = resolve_device(options.device, options.model.arch)
    manifest = some_images(count)
    dataset = ImageFiles(
        manifest.files(), preprocessing(options.image), targets=manifest.table["label"], seed=0
    )
    order = Order(count, options.optim.batch_size, seed=0)
    torch.manual_seed(0)
    training = start_training(build(model_spec(options)), device, options)
    steps = list(steps_of(training, TrainingData(Batches(dataset, order, 0)), 1))
    val = list(Batches(dataset, Order(count, 64), 0).epoch(0))

    def epoch() -> int:
        train_epoch(training, steps, Hooks())
        predict(training.network, val, device, count)
        return count

    return epoch, training.network


def _profiled(values: dict[str, Any], images: int) -> list[dict[str, Any]]:
    """Return the operators of one step of training with the largest shares of its time."""
    keep_freed_memory()
    with deterministic(0):
        epoch, _ = _epoch(values, min(images, 32))
        epoch()
        with profile(activities=[ProfilerActivity.CPU]) as measured:
            epoch()
    events = measured.key_averages()
    whole = math.fsum(event.self_cpu_time_total for event in events)
    costliest = sorted(events, key=lambda event: -event.self_cpu_time_total)[:_OPERATORS]
    return [
        {"name": e.key, "share": e.self_cpu_time_total / whole, "calls": e.count} for e in costliest
    ]


if __name__ == "__main__":
    main()

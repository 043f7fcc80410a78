"""Training epochs from JPEG files against the same training steps on tensors in memory.

    python -m benchmarks.training [--arch resnet18] [--image-size 224] [--rounds 12]

The tensors give the limit of the machine, at which reading images costs nothing: the same
`train_epoch` on the same batches, which are decoded and augmented beforehand.
"""

import os
import shutil
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from benchmarks.common import parser, ratio, report, take_turns
from synthdetect.datasets.index import index
from synthdetect.datasets.manifest import Manifest, load
from synthdetect.images.batches import Batches, ImageFiles, Order
from synthdetect.images.cache import DecodedCache
from synthdetect.models.networks import build
from synthdetect.runs.options import TrainOptions
from synthdetect.runs.preflight import resolve_device
from synthdetect.training.devices import Device
from synthdetect.training.loop import Hooks, TrainingData, start_training, steps_of, train_epoch
from synthdetect.training.session import model_spec, preprocessing

Work = Callable[[], int]


def main() -> None:
    arguments = parser("Measure the throughput of training.", rounds=12)
    arguments.add_argument("--arch", default="resnet18")
    arguments.add_argument("--image-size", type=int, default=224)
    arguments.add_argument("--images", type=int, default=96, help="images per epoch")
    given = arguments.parse_args()
    if given.smoke:
        given.images, given.image_size, given.rounds = 16, 32, 1

    options = TrainOptions.resolve({"arch": given.arch, "image_size": given.image_size, "seed": 0})
    device = resolve_device(options.device, given.arch)
    manifest = some_images(given.images)
    work = epochs(options, device, manifest, manifest.files(), manifest.table["sha256"].tolist())
    speeds = take_turns(work, given.rounds)
    rows = [
        {
            "key": f"{name}_to_memory",
            "what": f"{given.arch} at {given.image_size}, {device.precision}: epoch from {source}",
            "against": "tensors in memory",
            "wanted": wanted,
            **ratio(speeds, name, "memory"),
            "images_per_second": speeds[name],
        }
        for name, source, wanted in (
            ("files", "JPEG files", 0.95),
            ("cached", "the decoded-image cache", 0.97),
        )
    ]
    notes = f"{given.images} images of the sample per epoch, {given.rounds} rounds, batch 32"
    report(f"training_{given.arch}", "training", rows, device, given.output, notes)


def some_images(count: int) -> Manifest:
    """Return `count` training images of the sample, with their hashes."""
    manifest = index(load("sample")).split("train")
    return manifest.with_table(manifest.table.sample(count, random_state=0))


def epochs(
    options: TrainOptions,
    device: Device,
    manifest: Manifest,
    files: Sequence[str],
    hashes: Sequence[str],
) -> dict[str, Work]:
    """Return functions that train for one epoch, all with the same network.

    Args:
        options: The options of the training.
        device: The device that trains.
        manifest: The labels of the images.
        files: The paths of the images.
        hashes: The SHA-256 of each file.

    Returns:
        `files` reads the files, `cached` the decoded-image cache, and `memory` finished steps.
    """
    labels = manifest.table["label"]
    preprocess = preprocessing(options.image)
    cache = DecodedCache(hashes, preprocess, 2**32)
    order = Order(len(files), options.optim.batch_size, seed=0)
    kept = (cache, cache.slots(hashes))
    plain, cached = (
        TrainingData(
            Batches(
                ImageFiles(files, preprocess, targets=labels, seed=0, cache=source),
                order,
                device.workers,
                pin_memory=device.pin_memory,
            )
        )
        for source in (None, kept)
    )

    torch.manual_seed(0)
    training = start_training(build(model_spec(options)), device, options)
    in_memory = list(steps_of(training, plain, 1))

    def epoch(data: TrainingData | None) -> Work:
        def work() -> int:
            steps = in_memory if data is None else steps_of(training, data, 1)
            train_epoch(training, steps, Hooks())
            return len(files)

        return work

    return {"files": epoch(plain), "cached": epoch(cached), "memory": epoch(None)}


def with_temporary_cache(benchmark: Callable[[], None]) -> None:
    """Run a benchmark with a cache of decoded images that is removed afterwards."""
    folder = Path(tempfile.mkdtemp())
    try:
        os.environ["SYNTHDETECT_CACHE"] = str(folder)
        benchmark()
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    with_temporary_cache(main)

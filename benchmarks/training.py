"""Whole-epoch training from the sample's JPEG files against the same steps on tensors in memory.

    python -m benchmarks.training [--arch resnet18] [--image-size 224] [--rounds 12]

The limit is what the machine computes when images cost nothing: the same `train_epoch` on batches
that are already augmented, normalised by the network itself, in memory.
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
from synthdetect.images.geometry import Preprocess
from synthdetect.models.networks import build
from synthdetect.runs.options import TrainOptions
from synthdetect.training.devices import Device, resolve
from synthdetect.training.loop import prepared, start_training, train_epoch

Work = Callable[[], int]


def main() -> None:
    arguments = parser("training throughput", rounds=12)
    arguments.add_argument("--arch", default="resnet18")
    arguments.add_argument("--image-size", type=int, default=224)
    arguments.add_argument("--images", type=int, default=96, help="images an epoch")
    given = arguments.parse_args()
    if given.smoke:
        given.images, given.image_size, given.rounds = 16, 32, 1

    options = TrainOptions(arch=given.arch, image_size=given.image_size)
    device = resolve(options.device, options.precision, options.workers, options.arch)
    manifest = some_images(given.images)
    work = epochs(options, device, manifest, manifest.files(), manifest.table["sha256"].tolist())
    speeds = take_turns(work, given.rounds)
    rows = [
        {
            "key": f"{name}_to_memory",
            "what": f"{options.arch} at {options.image_size}, {device.precision}: "
            f"epoch from {source}",
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
    notes = f"{given.images} images of the sample an epoch, {given.rounds} rounds, batch 32"
    report(f"training_{options.arch}", "training", rows, device, given.output, notes)


def some_images(count: int) -> Manifest:
    """So many training images of the sample, with their hashes."""
    manifest = index(load("sample")).split("train")
    return manifest.with_table(manifest.table.sample(count, random_state=0))


def epochs(
    options: TrainOptions,
    device: Device,
    manifest: Manifest,
    files: Sequence[str],
    hashes: Sequence[str],
) -> dict[str, Work]:
    """One epoch of one training from files, from the decoded-image cache, or from memory.

    Args:
        options: of the training.
        device: what computes.
        manifest: says of which class the images are.
        files: where they are.
        hashes: of their contents.
    """
    labels = torch.tensor(manifest.table["label"].to_numpy(), dtype=torch.float32)
    preprocess = Preprocess(options.image_size, options.geometry)
    cache = DecodedCache(hashes, preprocess, 2**32)
    order = Order(len(files), options.batch_size, seed=0)
    plain = Batches(ImageFiles(files, preprocess, seed=0), order, device.workers)
    kept = (cache, cache.slots(hashes))
    cached = Batches(ImageFiles(files, preprocess, seed=0, cache=kept), order, device.workers)

    torch.manual_seed(0)
    training = start_training(build(options.arch, options.image_size), device, options)
    in_memory = list(prepared(plain, 1, labels, device, options, 0))

    def epoch(batches: Batches | None) -> Work:
        def work() -> int:
            ready = in_memory if batches is None else prepared(
                batches, 1, labels, device, options, 0
            )  # fmt: skip
            train_epoch(training, ready, lambda images, loss: None)
            return len(files)

        return work

    return {"files": epoch(plain), "cached": epoch(cached), "memory": epoch(None)}


def with_a_cache_of_its_own(benchmark: Callable[[], None]) -> None:
    """Run a benchmark; the decoded images it leaves are removed."""
    folder = Path(tempfile.mkdtemp())
    try:
        os.environ["SYNTHDETECT_CACHE"] = str(folder)
        benchmark()
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    with_a_cache_of_its_own(main)

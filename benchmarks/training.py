"""Whole-epoch training from the sample's JPEG files against the same steps on tensors in memory.

    python -m benchmarks.training [--arch resnet18] [--image-size 224] [--rounds 12]
    python -m benchmarks.training --arch mobilenet_v3_large --image-size 96 --enlarge 2048 \
        --cache-gains 2

The limit is what the machine computes when images cost nothing: the same `train_epoch` on batches
that are already augmented, normalised by the network itself, in memory. `--enlarge` first makes
photographs of a camera's size of the sample's, whose decoding dominates a small network's step.
"""

import os
import shutil
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from PIL import Image

from benchmarks.common import parser, ratio, report, take_turns
from synthdetect.config import TrainOptions
from synthdetect.data.batches import Batches, ImageFiles, Order
from synthdetect.data.cache import DecodedCache
from synthdetect.data.geometry import Preprocess
from synthdetect.data.index import index
from synthdetect.data.manifest import load
from synthdetect.files import file_sha256
from synthdetect.models.networks import build
from synthdetect.training.devices import resolve
from synthdetect.training.loop import prepared, start_training, train_epoch


def main() -> None:
    arguments = parser("training throughput", rounds=12)
    arguments.add_argument("--arch", default="resnet18")
    arguments.add_argument("--image-size", type=int, default=224)
    arguments.add_argument("--images", type=int, default=96, help="images an epoch")
    arguments.add_argument(
        "--cache-gains", type=float, default=0.0,
        help="where decoding dominates: how many times faster the cache is to be than the files",
    )  # fmt: skip
    arguments.add_argument(
        "--enlarge", type=int, default=0, help="longer side of the JPEG files in pixels; 0: as is"
    )
    given = arguments.parse_args()
    if given.smoke:
        given.images, given.image_size, given.rounds = 16, 32, 1

    options = TrainOptions(arch=given.arch, image_size=given.image_size)
    device = resolve(options.device, options.precision, options.workers, options.arch)
    manifest = index(load("sample")).split("train")
    manifest = manifest.with_table(manifest.table.sample(given.images, random_state=0))
    labels = torch.tensor(manifest.table["label"].to_numpy(), dtype=torch.float32)
    preprocess = Preprocess(options.image_size, options.geometry)
    files, hashes = manifest.files(), manifest.table["sha256"].tolist()
    if given.enlarge:
        files = _enlarged(files, given.enlarge)
        hashes = [file_sha256(Path(file)) for file in files]
    cache = DecodedCache(hashes, preprocess, 2**32)
    order = Order(len(files), options.batch_size, seed=0)
    plain = Batches(ImageFiles(files, preprocess, seed=0), order, device.workers)
    kept = (cache, cache.slots(hashes))
    cached = Batches(ImageFiles(files, preprocess, seed=0, cache=kept), order, device.workers)

    torch.manual_seed(0)
    training = start_training(build(options.arch, options.image_size), device, options)
    in_memory = list(prepared(plain, 1, labels, device, options, 0))

    def epoch(batches: Batches | None) -> Callable[[], int]:
        def work() -> int:
            ready = in_memory if batches is None else prepared(
                batches, 1, labels, device, options, 0
            )  # fmt: skip
            train_epoch(training, ready, lambda images, loss: None)
            return len(files)

        return work

    speeds = take_turns(
        {"files": epoch(plain), "cached": epoch(cached), "memory": epoch(None)}, given.rounds
    )
    what = f"{options.arch} at {options.image_size}, {device.precision}"
    rows = [
        {
            "key": f"{name}_to_memory",
            "what": f"{what}: epoch from {source}",
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
    if given.cache_gains:
        rows = [{
            "key": "cached_to_files",
            "what": f"{what}: epoch from the decoded-image cache",
            "against": "JPEG files",
            "wanted": given.cache_gains,
            **ratio(speeds, "cached", "files"),
            "images_per_second": speeds["cached"],
        }]  # fmt: skip
    size = f" enlarged to {given.enlarge} pixels, JPEG at quality 90," if given.enlarge else ""
    notes = f"{given.images} images of the sample{size} an epoch, {given.rounds} rounds, batch 32"
    report(f"training_{options.arch}", "training", rows, device, given.output, notes)


def _enlarged(files: Sequence[str], side: int) -> list[str]:
    """JPEG files of the same pictures whose longer side has so many pixels."""
    folder = Path(os.environ["SYNTHDETECT_CACHE"])
    result = []
    for number, file in enumerate(files):
        with Image.open(file) as image:
            scale = side / max(image.size)
            size = (round(image.width * scale), round(image.height * scale))
            large = image.convert("RGB").resize(size, Image.Resampling.BICUBIC)
        result.append(str(folder / f"{number}.jpg"))
        large.save(result[-1], quality=90)
    return result


if __name__ == "__main__":
    folder = Path(tempfile.mkdtemp())
    try:
        os.environ["SYNTHDETECT_CACHE"] = str(folder)
        main()
    finally:
        shutil.rmtree(folder)

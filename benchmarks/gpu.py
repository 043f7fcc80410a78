"""Training on a CUDA device: epochs against the same steps on tensors in its memory.

    python -m benchmarks.gpu [--arch resnet50] [--image-size 224] [--batch-size 256] [--rounds 5]

Without such a device nothing is measured, and the page says so. The steps on tensors in memory are
the limit of the device; what is missing to it is the time in which the device waits for images.
Also shown are what compiled steps gain, how many JPEG files its decoder reads against the
processes that read images, and how far its pixels are from theirs.
"""

import json
import shutil
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from torchvision.io import ImageReadMode, decode_jpeg

from benchmarks.common import parser, ratio, report, take_turns
from benchmarks.training import Work, epochs, with_temporary_cache
from synthdetect.datasets.index import index
from synthdetect.datasets.manifest import load
from synthdetect.images.batches import Batches, ImageFiles, Order
from synthdetect.images.reading import read_image
from synthdetect.runs.options import TrainOptions
from synthdetect.runs.preflight import resolve_device
from synthdetect.training.devices import Device
from synthdetect.training.session import preprocessing

_MISSING = "no CUDA device was at hand, so nothing was measured"


def main() -> None:
    arguments = parser("Measure the throughput of training on a CUDA device.", rounds=5)
    arguments.add_argument("--arch", default="resnet50")
    arguments.add_argument("--image-size", type=int, default=224)
    arguments.add_argument("--batch-size", type=int, default=256)
    arguments.add_argument("--batches", type=int, default=16, help="batches per epoch")
    given = arguments.parse_args()
    name = f"gpu_{given.arch}"
    if given.smoke:  # on any device, so that the script itself is tried
        given.arch, given.rounds = "resnet18_layer2", 1
        given.batch_size, given.image_size, given.batches = 8, 32, 2
    elif not torch.cuda.is_available():
        print(f"{name}: {_MISSING}.")
        _write_missing(name, given.output)
        return
    values = {"arch": given.arch, "image_size": given.image_size, "batch_size": given.batch_size,
              "seed": 0}  # fmt: skip
    options = TrainOptions.resolve(values)
    device = resolve_device(options.device, given.arch)
    sample = index(load("sample")).split("train")
    images = given.batch_size * given.batches
    manifest = sample.with_table(sample.table.sample(images, replace=True, random_state=0))
    hashes = manifest.table["sha256"].tolist()
    work = epochs(options, device, manifest, manifest.files(), hashes)
    compiled = epochs(options.replace(compile=True), device, manifest, manifest.files(), hashes)
    with _watched(device) as use:
        speeds = take_turns({**work, "compiled": compiled["memory"]}, given.rounds)
    what = f"{given.arch} at {given.image_size}, {device.precision}, batch {given.batch_size}"
    rows = [
        {
            "key": f"{contender}_to_memory",
            "what": f"{what}: {shown}",
            "against": "the same steps on tensors in memory",
            "wanted": wanted,
            **ratio(speeds, contender, "memory"),
            "images_per_second": speeds[contender],
        }
        for contender, shown, wanted in (
            ("cached", "epoch from the decoded-image cache", 0.95),
            ("files", f"epoch from JPEG files, {device.workers} processes read", 0.0),
            ("compiled", "compiled steps on tensors in memory", 0.0),
        )
    ]
    decoding, difference = _decoders(options, device, manifest.files(), given.rounds)
    if decoding:
        rows.append({
            "key": "decoder_to_processes",
            "what": "JPEG files decoded by the device, images per second",
            "against": f"decoded and resized by {device.workers} processes",
            "wanted": 0.0,
            **ratio(decoding, "device", "processes"),
        })  # fmt: skip
    notes = (
        f"{images} images of the sample per epoch, {given.rounds} rounds; "
        f"{np.median(speeds['memory']):.0f} images per second in memory; {use}{difference}"
    )
    report(name, "gpu", rows, device, given.output, notes)


def _write_missing(name: str, folder: Path) -> None:
    """Write that nothing was measured, unless there is a result from elsewhere."""
    file = folder / f"{name}.json"
    if not file.exists():
        folder.mkdir(parents=True, exist_ok=True)
        result = {"benchmark": name, "command": "python -m benchmarks.gpu", "missing": _MISSING}
        file.write_text(json.dumps(result, indent=2) + "\n")


class _Use:
    """What is used of a device: the mean utilisation in percent, and the most memory."""

    def __init__(self) -> None:
        self.percents: list[float] = []
        self.gib = 0.0

    def __str__(self) -> str:
        if not self.percents:
            return "utilisation not measured"
        return f"utilisation {np.mean(self.percents):.0f} %, at most {self.gib:.1f} GiB"


@contextmanager
def _watched(device: Device) -> Iterator[_Use]:
    """Watch a CUDA device by nvidia-smi, once a second."""
    use, ended = _Use(), threading.Event()
    query = ["nvidia-smi", "--query-gpu=utilization.gpu", "--format=csv,noheader,nounits",
             "--id=0"]  # fmt: skip

    def look() -> None:
        while not ended.wait(1.0):
            shown = subprocess.run(query, capture_output=True, text=True)
            if shown.returncode == 0:
                use.percents.append(float(shown.stdout))

    watching = device.kind == "cuda" and shutil.which("nvidia-smi") is not None
    thread = threading.Thread(target=look, daemon=True)
    if watching:
        torch.cuda.reset_peak_memory_stats()
        thread.start()
    try:
        yield use
    finally:
        ended.set()
        if watching:
            thread.join()
            use.gib = torch.cuda.max_memory_allocated() / 2**30


def _decoders(
    options: TrainOptions, device: Device, files: list[str], rounds: int
) -> tuple[dict[str, list[float]], str]:
    """Measure torchvision's JPEG decoder on a CUDA device against the processes that read images.

    Returns:
        The speeds of both, and how far the pixels of the two are apart; nothing on other devices.
    """
    if device.kind != "cuda":
        return {}, ""
    jpegs = [file for file in files if Path(file).suffix.lower() in (".jpg", ".jpeg")]
    data = [torch.frombuffer(bytearray(Path(file).read_bytes()), dtype=torch.uint8)
            for file in jpegs]  # fmt: skip
    batch = options.optim.batch_size
    read = Batches(
        ImageFiles(jpegs, preprocessing(options.image)), Order(len(jpegs), batch), device.workers,
        pin_memory=True,
    )  # fmt: skip

    def decode(chosen: list[torch.Tensor]) -> list[torch.Tensor]:
        found = decode_jpeg(chosen, mode=ImageReadMode.RGB, device="cuda")
        torch.cuda.synchronize()
        return list(found)

    def on_device() -> int:
        for begin in range(0, len(data), batch):
            decode(data[begin : begin + batch])
        return len(data)

    def by_processes() -> int:
        for _ in read.epoch(0):
            pass
        return len(jpegs)

    work: dict[str, Work] = {"device": on_device, "processes": by_processes}
    speeds = take_turns(work, rounds)
    apart = [
        np.abs(
            pixels.permute(1, 2, 0).cpu().numpy().astype(int)
            - np.asarray(read_image(bytes(content.numpy())))
        )
        for pixels, content in zip(decode(data[:32]), data, strict=False)
    ]
    largest = max(int(values.max()) for values in apart)
    return speeds, f"; decoded by the device, pixels differ by up to {largest} of 255"


if __name__ == "__main__":
    with_temporary_cache(main)

"""Batch inference from JPEG files, with its journal, against the bare forward pass.

    python -m benchmarks.inference [--arch resnet18] [--images 1000] [--rounds 10]

With torch and with every inference engine, in fp32, each round scores a thousand files as
`synthdetect predict` does, and then as many tensors in memory. The forward pass of the fastest
engine is the limit. The files are links to the sample's images, in a new folder for each round and
engine.
"""

import copy
import os
import statistics
import tempfile
from dataclasses import replace
from functools import partial
from itertools import cycle
from pathlib import Path

import torch

from benchmarks.common import parser, random_detector, ratio, report, take_turns
from synthdetect.datasets.manifest import load
from synthdetect.datasets.unlabelled import unlabelled
from synthdetect.detectors.card import TORCH
from synthdetect.detectors.detector import Detector
from synthdetect.detectors.engines.convert import to_graph
from synthdetect.detectors.engines.exported import load_exported, save_exported
from synthdetect.detectors.engines.options import ENGINES
from synthdetect.detectors.scoring import Scoring
from synthdetect.images.batches import Batch
from synthdetect.training.devices import resolve
from synthdetect.training.loop import predict

BATCH = 64


def main() -> None:
    arguments = parser("Measure batch inference.", rounds=10, needs=("export",))
    arguments.add_argument("--arch", default="resnet18")
    arguments.add_argument("--image-size", type=int, default=224)
    arguments.add_argument("--images", type=int, default=1000, help="images per round")
    given = arguments.parse_args()
    if given.smoke:
        given.images, given.image_size, given.rounds = 64, 32, 1

    device = resolve("auto", "fp32", "auto")
    detector = random_detector(given.arch, given.image_size)
    square = torch.randint(0, 256, (BATCH, given.image_size, given.image_size, 3)).byte()
    images: int = given.images
    whole, rest = divmod(images, BATCH)
    sizes = [BATCH] * whole + [rest] * bool(rest)
    in_memory = [
        Batch(
            rows=torch.arange(size),
            images=square[:size].permute(0, 3, 1, 2),
            targets=torch.full((size,), torch.nan),
            unreadable=[],
        )
        for size in sizes
    ]

    with tempfile.TemporaryDirectory() as temporary:
        engines = exact(detector, Path(temporary))
        folders = _folders(Path(temporary), (given.rounds + 1) * len(engines), images)

        def from_files(detector: Detector) -> int:
            folder = next(folders)
            listed = unlabelled(str(folder))
            scoring = Scoring(
                folder.with_suffix(".out"), [detector], listed,
                data=str(folder), batch_size=BATCH,
            )  # fmt: skip
            scoring.run(device, lambda done, total: None)
            scoring.scores()
            return len(listed)

        def from_memory(detector: Detector) -> int:
            for batch in in_memory:
                predict(detector.network, [batch], device, len(batch.rows))
            return images

        work = {}
        for name, one in engines.items():
            work[f"{name} files"] = partial(from_files, one)
            work[f"{name} memory"] = partial(from_memory, one)
        speeds = take_turns(work, given.rounds)
    fastest = max(engines, key=lambda name: statistics.median(speeds[f"{name} memory"]))
    rows = [
        {
            "key": f"{name}_files_to_memory",
            "what": f"{given.arch} at {given.image_size}, {name} fp32: scoring JPEG files",
            "against": f"its forward pass in memory{', the fastest' * (name == fastest)}",
            "wanted": 0.9 * (name in (fastest, TORCH)),
            **ratio(speeds, f"{name} files", f"{name} memory"),
            "images_per_second": speeds[f"{name} files"],
        }
        for name in engines
    ]
    notes = f"{given.rounds} rounds of {images:,} files per engine, batch {BATCH}"
    report(f"inference_{given.arch}", "inference", rows, device, given.output, notes)


def exact(detector: Detector, folder: Path) -> dict[str, Detector]:
    """Return the detector in torch and exported to every engine in fp32, by engine."""
    graph = to_graph(detector)
    engines = {TORCH: detector}
    for name in ENGINES:
        file = folder / f"{name}.onnx"
        save_exported(file, copy.deepcopy(graph), replace(detector.card, engine=name))
        engines[name] = load_exported(file)
    return engines


def _folders(root: Path, number: int, images: int) -> "cycle[Path]":
    """Make folders of links to images of the sample, which are copied to their file system once."""
    sample = load("sample")
    files = []
    for row, path in enumerate(sample.table["path"]):
        copy = root / f"{row}.jpg"
        copy.write_bytes(Path(sample.file(path)).read_bytes())
        files.append(copy)
    source = cycle(files)
    folders = []
    for part in range(number):
        folder = root / f"part{part}"
        folder.mkdir()
        for row in range(images):
            os.link(next(source), folder / f"{row:05}.jpg")
        folders.append(folder)
    return cycle(folders)


if __name__ == "__main__":
    main()

"""Batch inference from JPEG files, journal and all, against the bare forward pass.

    python -m benchmarks.inference [--arch resnet18] [--images 1000] [--rounds 10]

Each round scores the next thousand of 10,000 files (links to the sample's images) as `synthdetect
predict` does, and then as many tensors in memory by the same network.
"""

import os
import tempfile
from itertools import cycle
from pathlib import Path

import torch

from benchmarks.common import parser, ratio, report, take_turns
from synthdetect.data.batches import Batch
from synthdetect.data.manifest import load
from synthdetect.data.sources import unlabelled
from synthdetect.detector import Card, Detector
from synthdetect.inference import Scoring
from synthdetect.models.networks import build
from synthdetect.training.devices import resolve
from synthdetect.training.loop import predict

BATCH = 64


def main() -> None:
    arguments = parser("batch inference", rounds=10)
    arguments.add_argument("--arch", default="resnet18")
    arguments.add_argument("--image-size", type=int, default=224)
    arguments.add_argument("--images", type=int, default=1000, help="images a round")
    given = arguments.parse_args()
    if given.smoke:
        given.images, given.image_size, given.rounds = 64, 32, 1

    device = resolve("auto", "fp32", "auto")
    torch.manual_seed(0)
    card = Card(arch=given.arch, image_size=given.image_size, geometry="resize")
    detector = Detector(build(given.arch, given.image_size), card)
    square = torch.randint(0, 256, (BATCH, given.image_size, given.image_size, 3)).byte()
    whole, rest = divmod(given.images, BATCH)
    sizes = [BATCH] * whole + [rest] * bool(rest)
    in_memory = [Batch(torch.arange(size), square[:size].permute(0, 3, 1, 2), []) for size in sizes]

    with tempfile.TemporaryDirectory() as temporary:
        folders = _folders(Path(temporary), given.rounds + 1, given.images)

        def from_files() -> int:
            folder = next(folders)
            images = unlabelled(str(folder))
            scoring = Scoring(
                folder.with_suffix(".out"), [detector], images,
                data=str(folder), tta="none", batch_size=BATCH,
            )  # fmt: skip
            scoring.run(device, lambda done, total: None)
            scoring.scores()
            return len(images)

        def from_memory() -> int:
            for batch in in_memory:
                predict(detector.network, [batch], device, len(batch.rows))
            return given.images

        speeds = take_turns({"files": from_files, "memory": from_memory}, given.rounds)
    row = {
        "key": "files_to_memory",
        "what": f"{given.arch} at {given.image_size}, fp32: scoring JPEG files",
        "against": "forward pass in memory",
        "wanted": 0.9,
        **ratio(speeds, "files", "memory"),
        "images_per_second": speeds["files"],
    }
    notes = f"{given.rounds} rounds of {given.images:,} files, batch {BATCH}"
    report(f"inference_{given.arch}", "inference", [row], device, given.output, notes)


def _folders(root: Path, number: int, images: int) -> "cycle[Path]":
    """Folders of links to the sample's images, copied once to be on the same file system."""
    sample = load("sample")
    files = []
    for row, path in enumerate(sample.table["path"]):
        copy = root / f"{row}.jpg"
        copy.write_bytes(sample.file(path).read_bytes())
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

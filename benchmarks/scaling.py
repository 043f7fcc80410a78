"""How cost grows with the number of images: manifest, index, split, the start of an epoch, workers.

    python -m benchmarks.scaling [--sizes 1000,10000,100000,700000]

Each size is a folder of links to a few small files, in GenImage's layout, and is measured in a
process of its own, so that the memory of one does not hide in that of another. Nothing is decoded:
what grows with the pixels is measured by the other benchmarks.
"""

import json
import multiprocessing
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import matplotlib.pyplot as plt
import numpy as np
import psutil
from PIL import Image

from benchmarks.common import parser, report
from synthdetect.datasets.index import index
from synthdetect.datasets.manifest import Manifest, load, read, write
from synthdetect.datasets.options import DataOptions
from synthdetect.datasets.selection import select
from synthdetect.datasets.splits import check_splits, make_missing_splits
from synthdetect.images.batches import Batches, ImageFiles, Order, Pixels
from synthdetect.images.cache import DecodedCache
from synthdetect.images.geometry import Preprocess
from synthdetect.training.devices import resolve

GENERATORS, FOLDERS = 8, 20
_LINKS = 30_000  # of one file: file systems allow 65,000
_WORKERS = 2
Result = TypeVar("Result")


class Step(NamedTuple):
    """What one step took: seconds, and MiB that the process had grown by when it was over."""

    seconds: float
    mib: float


class Untouched(ImageFiles):
    """Files that are named but not opened: what remains is what the rows themselves cost."""

    def _make(self, epoch: int, row: int) -> Pixels:
        self.name(row)
        return np.zeros((8, 8, 3), np.uint8)


def main() -> None:
    arguments = parser("how cost grows with the number of images", rounds=1)
    arguments.add_argument("--sizes", default="1000,10000,100000,700000")
    arguments.add_argument("--measure", type=Path, help="measure this folder, and print JSON")
    given = arguments.parse_args()
    if given.measure:
        print(json.dumps(_measure(given.measure)))
        return
    sizes = [400, 800] if given.smoke else [int(size) for size in given.sizes.split(",")]
    found = {size: _in_a_process(size) for size in sizes}
    for size, steps in found.items():
        print(f"{size:>9,}", *(f"{name} {s:.2f} s {m:.0f} MiB;" for name, (s, m) in steps.items()))
    before, most = sizes[-2:]
    top = {name: Step(*step) for name, step in found[most].items()}
    back = top["read back"].seconds + top["split"].seconds
    rows = [
        _row("read_and_split", f"{most:,} images: reading a manifest back, splitting", back, 5),
        _row("worker_memory", f"{most:,} images: MiB a worker grows by", top["worker"].mib, 50),
        *(
            _row(f"growth {name}", f"{name}: seconds at {most:,} images",
                 step.seconds, found[before][name][0] * most / before)
            for name, step in top.items() if step.seconds > 0.1
        ),
    ]  # fmt: skip
    notes = (
        f"links to small files in {GENERATORS} generators' folders; a ratio is how many times what "
        "is allowed holds what was measured: 5 s, 50 MiB, or (growth) as many times the next "
        "smaller size's seconds as there are more images"
    )
    report("scaling", "scaling", rows, resolve("auto", "auto", "auto"), given.output, notes)
    file = given.output / "scaling.json"
    steps = {str(size): {n: Step(*s)._asdict() for n, s in f.items()} for size, f in found.items()}
    file.write_text(json.dumps({**json.loads(file.read_text()), "steps": steps}, indent=2) + "\n")
    _draw(found, given.output / "scaling.png")


def _row(key: str, what: str, measured: float, allowed: float) -> dict[str, Any]:
    held = allowed / max(measured, 1e-9)
    against = f"{allowed:.1f} allowed, {measured:.2f} measured"
    # Linear growth is 1; what a machine's caches do to it is not what is asked about.
    wanted = 0.7 if key.startswith("growth") else 1.0
    return {"key": key, "what": what, "against": against, "wanted": wanted, "ratio": held,
            "low": held, "high": held}  # fmt: skip


def _in_a_process(size: int) -> dict[str, tuple[float, float]]:
    with tempfile.TemporaryDirectory() as folder:
        _make(Path(folder) / "data", size)
        command = [sys.executable, "-m", "benchmarks.scaling", "--measure", f"{folder}/data"]
        environment = {**os.environ, "SYNTHDETECT_CACHE": f"{folder}/cache"}
        out = subprocess.run(
            command, env=environment, check=True, stdout=subprocess.PIPE, text=True
        ).stdout
        return dict(json.loads(out.splitlines()[-1]))


def _make(root: Path, size: int) -> None:
    """GenImage's layout: `GENERATOR/train/{ai,nature}/FILES`."""
    inside = size // (GENERATORS * 2)
    source = None
    for number in range(GENERATORS * 2 * inside):
        generator, rest = divmod(number, 2 * inside)
        kind, row = divmod(rest, inside)
        folder = root / f"imagenet_ai_{generator}" / "train" / ("ai", "nature")[kind]
        if row == 0:
            folder.mkdir(parents=True)
        file = folder / f"image-{number:07}.jpg"
        if source is None or number % _LINKS == 0:
            Image.new("RGB", (8, 8)).save(file)
            source = file
        else:
            os.link(source, file)


def _measure(folder: Path) -> dict[str, Step]:
    steps: dict[str, Step] = {}
    start = psutil.Process().memory_info().rss

    def timed(name: str, work: Callable[[], Result]) -> Result:
        began = time.perf_counter()
        result = work()
        seconds = time.perf_counter() - began
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        steps[name] = Step(seconds, (peak - start) / 2**20)
        return result

    listed = timed("list the folder", lambda: load(str(folder)))
    described = _described(listed)
    for suffix in ("csv", "parquet"):
        timed(f"write {suffix}", lambda s=suffix: write(described, folder / f"all.{s}"))  # type: ignore[misc]
    timed("read back csv", lambda: read(folder / "all.csv"))
    back = timed("read back", lambda: read(folder / "all.parquet"))
    known = timed("index again", lambda: index(back))
    timed("digest", known.digest)
    whole = timed(
        "split", lambda: make_missing_splits(known, seed=0, val_share=0.1, test_share=0.1)
    )
    options = DataOptions(per_category=len(whole) // FOLDERS, max_images=len(whole) // 2)
    timed("select", lambda: select(whole, options, seed=0))
    timed("check", lambda: check_splits(whole))
    batches = timed("start an epoch", lambda: _start(whole))
    began = time.perf_counter()
    growth = _worker_growth(batches)
    steps["worker"] = Step(time.perf_counter() - began, growth)
    return steps


def _described(manifest: Manifest) -> Manifest:
    """As indexing would leave it, but for made-up hashes."""
    table = manifest.table.copy()
    stats = [os.stat(file) for file in manifest.files()]
    table["bytes"] = [stat.st_size for stat in stats]
    table["mtime_ns"] = [stat.st_mtime_ns for stat in stats]
    table = table.assign(
        width=8, height=8, format="JPEG", mode="RGB", jpeg_quality=75, exif=False, error=""
    )
    table["sha256"] = [f"{row:064x}" for row in range(len(table))]
    table["source_id"] = [f"photo {row // 2}" for row in range(len(table))]
    table["category"] = [f"category {row % FOLDERS}" for row in range(len(table))]
    table["split"] = ""
    return manifest.with_table(table)


def _start(manifest: Manifest) -> Batches:
    """What a training does with its rows before its first step."""
    train, preprocess = manifest.split("train"), Preprocess(8, "resize")
    cache = DecodedCache(manifest.table["sha256"].tolist(), preprocess, 2**20)
    files = Untouched(
        train.files(),
        preprocess,
        seed=0,
        cache=(cache, cache.slots(train.table["sha256"].tolist())),
    )
    batches = Batches(files, Order(len(files), 256, seed=0), _WORKERS)
    next(iter(batches.order))
    return batches


def _worker_growth(batches: Batches) -> float:
    """MiB of memory of its own that the worst worker gains from its first batch to its last."""
    first: dict[int, int] = {}
    last: dict[int, int] = {}
    for number, _ in enumerate(batches.epoch(0)):
        if number == 2 * _WORKERS or number > len(batches) - 3:
            for worker in multiprocessing.active_children():
                if worker.pid:
                    own = psutil.Process(worker.pid).memory_full_info().uss
                    first.setdefault(worker.pid, own)
                    last[worker.pid] = own
    return max((last[pid] - first[pid]) / 2**20 for pid in first)


def _draw(found: dict[int, dict[str, tuple[float, float]]], file: Path) -> None:
    figure, axes = plt.subplots(1, 2, figsize=(11, 4.5), layout="constrained")
    sizes = list(found)
    for name in next(iter(found.values())):
        axes[0].loglog(sizes, [found[size][name][0] for size in sizes], marker="o", label=name)
    axes[0].loglog(sizes, [size / sizes[-1] for size in sizes], "k:", label="linear")
    axes[0].set(xlabel="images", ylabel="seconds")
    axes[0].legend(fontsize="small")
    most = [max(step[1] for step in found[size].values()) for size in sizes]
    axes[1].loglog(sizes, most, marker="o")
    axes[1].set(xlabel="images", ylabel="most MiB that the process grew by")
    figure.savefig(file, dpi=110)
    plt.close(figure)


if __name__ == "__main__":
    main()

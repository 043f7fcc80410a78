"""How time and memory grow with the number of images.

    python -m benchmarks.scaling [--sizes 1000,10000,100000,700000]

The steps are those on a manifest, such as reading, indexing and splitting it, and the start of an
epoch. Each size is a folder of links to a few small files in GenImage's layout, and is measured in
a process of its own, whose memory holds nothing of other sizes. No image is decoded; the other
benchmarks measure the cost of pixels.
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
from synthdetect.images.geometry import Place, Preprocess
from synthdetect.training.devices import resolve

GENERATORS, FOLDERS = 8, 20
_LINKS = 30_000  # to one file; file systems allow 65,000
_WORKERS = 2
Result = TypeVar("Result")


class Step(NamedTuple):
    """The cost of a step: its seconds, and the growth of peak memory in MiB by its end."""

    seconds: float
    mib: float


class Untouched(ImageFiles):
    """Files that are named but not read, so that only the cost of their rows remains."""

    def _make(self, row: int, place: Place) -> Pixels:
        self.name(row)
        return np.zeros((8, 8, 3), np.uint8)


def main() -> None:
    arguments = parser("Measure how time and memory grow with the number of images.", rounds=1)
    arguments.add_argument("--sizes", default="1000,10000,100000,700000", help="numbers of images")
    arguments.add_argument(
        "--measure", type=Path, help="measure this folder and print JSON (used internally)"
    )
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
        f"links to small files in the folders of {GENERATORS} generators; a ratio is that of the "
        "allowed cost to the measured one; allowed are 5 s, 50 MiB, and for growth the seconds of "
        "the next smaller size times the ratio of the sizes"
    )
    report("scaling", "scaling", rows, resolve("auto", "auto", "auto"), given.output, notes)
    file = given.output / "scaling.json"
    costs = {str(size): {n: Step(*s)._asdict() for n, s in f.items()} for size, f in found.items()}
    file.write_text(json.dumps({**json.loads(file.read_text()), "steps": costs}, indent=2) + "\n")
    _draw(found, given.output / "scaling.png")


def _row(key: str, what: str, measured: float, allowed: float) -> dict[str, Any]:
    ratio = allowed / max(measured, 1e-9)
    against = f"{allowed:.1f} allowed, {measured:.2f} measured"
    # Linear growth is 1. The tolerance covers the effect of the processor's caches.
    wanted = 0.7 if key.startswith("growth") else 1.0
    return {"key": key, "what": what, "against": against, "wanted": wanted, "ratio": ratio,
            "low": ratio, "high": ratio}  # fmt: skip


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
    """Make a folder in GenImage's layout: `GENERATOR/train/{ai,nature}/FILES`."""
    per_folder = size // (GENERATORS * 2)
    source = None
    for number in range(GENERATORS * 2 * per_folder):
        generator, rest = divmod(number, 2 * per_folder)
        kind, row = divmod(rest, per_folder)
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
    """Return the manifest with the columns of the index, and invented hashes."""
    table = manifest.table.copy()
    stats = [os.stat(file) for file in manifest.files()]
    table["bytes"] = [stat.st_size for stat in stats]
    table["mtime_ns"] = [stat.st_mtime_ns for stat in stats]
    table = table.assign(
        width=8, height=8, format="JPEG", mode="RGB", jpeg_quality=75, exif=False, provenance="",
        error="",
    )  # fmt: skip
    table["sha256"] = [f"{row:064x}" for row in range(len(table))]
    table["source_id"] = [f"photo {row // 2}" for row in range(len(table))]
    table["category"] = [f"category {row % FOLDERS}" for row in range(len(table))]
    table["split"] = ""
    return manifest.with_table(table)


def _start(manifest: Manifest) -> Batches:
    """Do what a training does with its rows before its first step."""
    train, preprocess = manifest.split("train"), Preprocess(8, "resize")
    cache = DecodedCache(manifest.table["sha256"].tolist(), preprocess, 2**20)
    files = Untouched(
        train.files(),
        preprocess,
        targets=train.table["label"],
        seed=0,
        cache=(cache, cache.slots(train.table["sha256"].tolist())),
    )
    batches = Batches(files, Order(len(files), 256, seed=0), _WORKERS)
    next(iter(batches.order))
    return batches


def _worker_growth(batches: Batches) -> float:
    """Return the largest growth of a worker's own memory from first to last batch, in MiB."""
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
    axes[0].loglog(sizes, [size / sizes[-1] for size in sizes], "k:", label="linear growth")
    axes[0].set(xlabel="images", ylabel="seconds")
    axes[0].legend(fontsize="small")
    most = [max(step[1] for step in found[size].values()) for size in sizes]
    axes[1].loglog(sizes, most, marker="o")
    axes[1].set(xlabel="images", ylabel="growth of the process in MiB")
    figure.savefig(file, dpi=110)
    plt.close(figure)


if __name__ == "__main__":
    main()

"""How fast a training on shards begins, and how fast images are read from them.

    python -m benchmarks.shards [--images 700000]

Tiny images are written as tar shards and as Parquet files. Processes of their own then list the
shards, read the manifest back, look whether the shards have changed, and begin an epoch: everything
up to the first batch, read by two workers in random order.
"""

import gc
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pandas as pd
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from benchmarks.common import parser, ratio, report, take_turns
from synthdetect.datasets.index import index
from synthdetect.datasets.manifest import Manifest, load, read, write
from synthdetect.datasets.packing import pack
from synthdetect.images.batches import Batches, ImageFiles, Order
from synthdetect.images.cache import DecodedCache
from synthdetect.images.contents import member_path, read_content, shard_stamps
from synthdetect.images.geometry import Preprocess
from synthdetect.training.devices import resolve

FORMS = ("tar", "parquet")
_BATCH, _WORKERS = 32, 2
_EACH, _GROUP = 10_000, 1000  # images of a shard, and of a row group
_READ = 2000  # images whose reading is timed
Result = TypeVar("Result")


def main() -> None:
    arguments = parser("Measure how a training on shards begins.", rounds=5)
    arguments.add_argument("--images", type=int, default=700_000, help="number of images")
    arguments.add_argument("--measure", type=Path, help="measure this folder (used internally)")
    given = arguments.parse_args()
    if given.measure:
        print(json.dumps(_measure(given.measure)))
        return
    images = 400 if given.smoke else given.images
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        os.environ["SYNTHDETECT_CACHE"] = f"{folder}/cache"
        for form in FORMS:
            _make(Path(folder) / form, form, images)
            command = [sys.executable, "-m", "benchmarks.shards", "--measure", f"{folder}/{form}"]
            out = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
            found = json.loads(out.splitlines()[-1])
            print(form, found)
            rows += [
                _row(form, images, "seconds to begin an epoch", found["begin"][0], 5),
                _row(form, images, "MiB to begin an epoch", found["begin"][1], 300),
                _row(form, images, "seconds to read the manifest", found["read"][0], 5),
                _row(form, images, "seconds to see that no shard has changed",
                     found["index"][0], 5),
                _row(form, images, "seconds to list the shards", found["list"][0], 0),
            ]  # fmt: skip
        rows += _reading(Path(folder), 1 if given.smoke else given.rounds)
    notes = (
        "JPEG images of 8 by 8 pixels; a ratio is that of the allowed cost to the measured one, or "
        "of speeds of reading in random order, without decoding, from a warm disk"
    )
    report("shards", "shards", rows, resolve("auto", "auto", "auto"), given.output, notes)


def _row(form: str, images: int, what: str, measured: float, allowed: float) -> dict[str, Any]:
    times = (allowed or measured) / max(measured, 1e-9)
    against = f"{allowed:g} allowed, {measured:.2f} measured" if allowed else f"{measured:.2f}"
    return {
        "key": f"{form} {what}", "what": f"{form}, {images:,} images: {what}", "against": against,
        "wanted": 1.0 if allowed else 0, "ratio": times, "low": times, "high": times,
    }  # fmt: skip


def _make(folder: Path, form: str, images: int) -> None:
    """Write shards in `FOLDER/shards`, and beside it a manifest of them as the index makes it.

    All shards are copies of the first one, under names of their own.
    """
    folder.mkdir()
    picture = folder / "picture.tar"  # of which all rows are members, so that nothing is copied
    Image.new("RGB", (8, 8)).save(picture, "JPEG")
    each = min(_EACH, images // 2)
    shards = folder / "shards"
    described = _described(folder, picture.stat().st_size, each)
    if form == "tar":
        first = pack(described, str(shards), shard_bytes=2**40).table["path"]
        (shards / "manifest.parquet").unlink()
    else:
        shards.mkdir()
        first = _write_parquet(described.table, picture.read_bytes(), shards)
    name, ending = first.iloc[0].partition("#")[0], f".{form}"
    names = [name, *(f"train-{number:06}{ending}" for number in range(1, images // each))]
    for copy in names[1:]:
        shutil.copy(shards / name, shards / copy)
    stamps = shard_stamps(str(shards / copy) for copy in names)
    tables = [
        described.table.assign(
            path=first.str.replace(name, f"shards/{copy}", regex=False),
            mtime_ns=stamps[str(shards / copy)],
            sha256=[f"{number:032x}{row:032x}" for row in range(each)],
        )
        for number, copy in enumerate(names)
    ]
    write(described.with_table(pd.concat(tables)), folder / "all.parquet")


def _write_parquet(table: pd.DataFrame, data: bytes, shards: Path) -> "pd.Series[str]":
    """Write a Parquet file with one image in all rows, and return the paths of its images."""
    names = [path.rpartition("/")[2] for path in table["path"]]
    columns = {
        "image": [{"bytes": data, "path": name} for name in names],
        "label": table["label"].map(["real", "fake"].__getitem__).tolist(),
        "model": table["generator"].tolist(),
    }
    shard = "train-000000.parquet"
    # Without a dictionary, which would hold the image once.
    pq.write_table(pa.table(columns), shards / shard, row_group_size=_GROUP, use_dictionary=False)
    return pd.Series(
        [member_path(shard, *divmod(row, _GROUP), name) for row, name in enumerate(names)]
    )


def _described(folder: Path, size: int, images: int) -> Manifest:
    """Return a manifest of as many images as are asked for, with the columns of the index."""
    number = np.arange(images)
    return Manifest(
        pd.DataFrame(
            {
                "path": [f"{folder}/picture.tar#0+{size}/{row:07}.jpg" for row in number],
                "label": (number % 2).astype("int8"),
                "split": "train",
                "generator": np.where(number % 2, "flux", ""),
                "category": [f"category {row % 20}" for row in number],
                "source_id": [f"photo {row // 2}" for row in number],
                "bytes": size, "mtime_ns": 0, "sha256": "", "width": 8, "height": 8,
                "format": "JPEG", "mode": "RGB", "jpeg_quality": 75, "exif": False,
                "provenance": "",
            }
        ),
        folder,
        "made",
    )  # fmt: skip


def _measure(folder: Path) -> dict[str, tuple[float, float]]:
    """Return the seconds of each step, and the growth of peak memory in MiB by its end."""
    steps: dict[str, tuple[float, float]] = {}

    def timed(name: str, work: Callable[[], Result]) -> Result:
        gc.collect()
        before, began = psutil.Process().memory_info().rss, time.perf_counter()
        _reset_peak()
        result = work()
        seconds = time.perf_counter() - began
        steps[name] = (seconds, (_peak() - before) / 2**20)
        return result

    manifest = timed("read", lambda: read(folder / "all.parquet"))
    manifest = timed("index", lambda: index(manifest))
    timed("begin", lambda: _begin(manifest))
    timed("list", lambda: load(str(folder / "shards")))
    return steps


def _begin(manifest: Manifest) -> Batches:
    """Do what a training does with its rows up to its first batch."""
    train, preprocess = manifest.split("train"), Preprocess(8, "resize")
    hashes = train.table["sha256"].tolist()
    cache = DecodedCache(hashes, preprocess, 2**30)
    files = ImageFiles(
        train.files(), preprocess, targets=train.table["label"], seed=0,
        cache=(cache, cache.slots(hashes)),
    )  # fmt: skip
    batches = Batches(files, Order(len(files), _BATCH, seed=0), _WORKERS)
    next(batches.strict_epoch(0))
    return batches


def _reset_peak() -> None:
    Path("/proc/self/clear_refs").write_text("5")


def _peak() -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _reading(folder: Path, rounds: int) -> list[dict[str, Any]]:
    """Compare the speeds of reading images in random order from files and from shards."""
    parts = {form: read(folder / form / "all.parquet") for form in FORMS}
    chosen = np.random.default_rng(0).permutation(len(parts["tar"]))[:_READ]
    paths = {f: [m.file(m.table["path"].iloc[row]) for row in chosen] for f, m in parts.items()}
    (folder / "files").mkdir()
    paths["files"] = [str(folder / "files" / f"{number}.jpg") for number in range(len(chosen))]
    for source, target in zip(paths["tar"], paths["files"], strict=True):
        Path(target).write_bytes(read_content(source))

    def reader(form: str) -> Callable[[], int]:
        return lambda: len([read_content(path) for path in paths[form]])

    speeds = take_turns({form: reader(form) for form in paths}, rounds)
    return [
        {"key": f"reading {form}", "what": f"reading from {form}", "against": "files",
         "wanted": 0.5, **ratio(speeds, form, "files")}
        for form in FORMS
    ]  # fmt: skip


if __name__ == "__main__":
    main()

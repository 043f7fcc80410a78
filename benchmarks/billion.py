"""What it takes to score a billion images: speeds per core, and the table made of them.

    python -m benchmarks.billion [--arch resnet18] [--price 0.04] [--cores 1000] [--images 1000]

One thread scores JPEG files, decodes them, reads their metadata, and merges parts of a prediction.
Speeds are per second of the process's time on a core, which other work on the machine hardly
changes. The price of a core for an hour is an assumption: give your own. `docs/scaling.md` has the
table.
"""

import tempfile
import time
from collections.abc import Callable
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from benchmarks.common import parser, random_detector, report, row_of
from synthdetect.datasets.manifest import load
from synthdetect.datasets.unlabelled import ListedFiles, unlabelled
from synthdetect.detectors.scoring import Scoring, names_sha256
from synthdetect.evaluation.decision import Decision
from synthdetect.images.provenance import provenance
from synthdetect.runs.merging import merge_predictions
from synthdetect.runs.options import MergeOptions
from synthdetect.runs.prediction_tables import Description, writing_tables
from synthdetect.runs.shard import Shard
from synthdetect.training.devices import deterministic, resolve

PAGE = Path(__file__).parents[1] / "docs" / "scaling.md"
_BEGIN, _END = "<!-- benchmarks.billion -->\n", "<!-- end -->"
_BILLION = 1_000_000_000
_BATCH, _PARTS = 64, 4


def main() -> None:
    arguments = parser("Measure what a billion images need.", rounds=5)
    arguments.add_argument("--arch", default="resnet18")
    arguments.add_argument("--image-size", type=int, default=224)
    arguments.add_argument("--images", type=int, default=1000, help="images per round")
    arguments.add_argument("--rows", type=int, default=1_000_000, help="rows that are merged")
    arguments.add_argument("--price", type=float, default=0.04, help="US dollars per core and hour")
    arguments.add_argument("--cores", type=int, default=1000, help="cores that score at once")
    given = arguments.parse_args()
    if given.smoke:
        given.images, given.image_size, given.rounds, given.rows = _BATCH, 32, 1, 2000

    torch.set_num_threads(1)
    sample = load("sample")
    images = ListedFiles(sample.root, list(islice(cycle(sample.table["path"]), given.images)))
    detector = random_detector(given.arch, given.image_size)
    device = resolve("cpu", "fp32", "0")
    contents = [images.read(row) for row in range(len(images))]

    def scoring() -> None:
        with tempfile.TemporaryDirectory() as folder, deterministic(0):
            whole = Scoring(Path(folder), [detector], images, data="", batch_size=_BATCH)
            whole.run(device, lambda done, total: None)

    work: dict[str, Callable[[], object]] = {
        "scoring": scoring,
        "decoding": lambda: [detector.preprocess(content) for content in contents],
        "metadata": lambda: [provenance(content) for content in contents],
    }
    speeds: dict[str, list[float]] = {name: [] for name in (*work, "merging")}
    for number in range(given.rounds + 1):
        for name, run in work.items():
            speed = len(images) / _seconds(run)
            if number:
                speeds[name].append(speed)
    with tempfile.TemporaryDirectory() as folder:
        merging, size = _merging(Path(folder), given.rows)
        speeds["merging"] = [given.rows / _seconds(merging) for _ in range(given.rounds)]
    rows = [
        row_of(
            f"{name}_to_scoring",
            f"{given.arch} at {given.image_size}: {name} alone, images per second of a core",
            "scoring JPEG files",
            0.0,
            [a / b for a, b in zip(speeds[name], speeds["scoring"], strict=True)],
        )
        for name in ("decoding", "metadata", "merging")
    ]
    rows[0]["measured"] = {
        **{name: float(np.median(values)) for name, values in speeds.items()},
        "bytes_per_image": float(np.mean([len(content) for content in contents])),
        "bytes_per_row": size / given.rows,
        "price": given.price,
        "cores": given.cores,
        "arch": given.arch,
        "image_size": given.image_size,
    }
    print(table(rows[0]["measured"]))
    notes = f"{given.rounds} rounds of {given.images:,} files and {given.rows:,} rows, one thread"
    report("billion", "billion", rows, device, given.output, notes)


def table(measured: dict[str, Any]) -> str:
    """Return a table in Markdown of what a billion images need, from the measured speeds."""
    scoring = _BILLION / measured["scoring"] / 3600
    cores, price = measured["cores"], measured["price"]
    per_second = measured["scoring"] * cores
    lines = [
        ("images per second of one core, from files", f"{measured['scoring']:.1f}"),
        ("core hours", f"{scoring:,.0f}"),
        (f"hours on {cores:,} cores", f"{scoring / cores:,.1f}"),
        (f"price, at an assumed {price:g} US dollars per core and hour", f"{scoring * price:,.0f}"),
        (
            "of which decoding and resizing",
            f"{measured['scoring'] / measured['decoding']:.0%}",
        ),
        (
            "core hours more with `--metadata true`",
            f"{_BILLION / measured['metadata'] / 3600:,.0f}",
        ),
        (
            f"files, of {measured['bytes_per_image'] / 1024:.0f} KiB each",
            f"{_BILLION * measured['bytes_per_image'] / 1e12:.1f} TB",
        ),
        (
            f"read from storage by {cores:,} cores",
            f"{per_second * measured['bytes_per_image'] * 8 / 1e9:.1f} Gbit/s, "
            f"{per_second:,.0f} files/s",
        ),
        ("tables, CSV and Parquet", f"{_BILLION * measured['bytes_per_row'] / 1e9:,.0f} GB"),
        ("merge, on one core", f"{_BILLION / measured['merging'] / 3600:.1f} hours"),
    ]
    head = f"| {measured['arch']} at {measured['image_size']} pixels, a billion images | |"
    return "\n".join([head, "| --- | --- |", *(f"| {what} | {value} |" for what, value in lines)])


def write_table(results: list[dict[str, Any]]) -> None:
    """Put the table of the result, if there is one, into `docs/scaling.md`."""
    for result in results:
        if result["benchmark"] == "billion":
            text = PAGE.read_text()
            before, _, rest = text.partition(_BEGIN)
            _, _, after = rest.partition(_END)
            machine = result["machine"]
            source = f"Measured by `python -m benchmarks.billion` on {machine['name']}: "
            source += f"{result['notes']}.\n"
            made = table(result["rows"][0]["measured"])
            PAGE.write_text(f"{before}{_BEGIN}{made}\n\n{source}{_END}{after}")


def _seconds(work: Callable[[], object]) -> float:
    """Return the seconds of this process on a core."""
    before = time.process_time()
    work()
    return time.process_time() - before


def _merging(folder: Path, rows: int) -> tuple[Callable[[], object], int]:
    """Return a merge of made-up parts, and the bytes of its tables."""
    names = [f"images/{row:010d}.jpg" for row in range(rows)]
    data = folder / "images.parquet"
    pd.DataFrame({"path": names}).to_parquet(data)
    images = unlabelled(str(data))
    rng, decision = np.random.default_rng(0), Decision()
    for number in range(1, _PARTS + 1):
        part = Shard(number, _PARTS).rows(rows, _BATCH)
        logits = rng.normal(size=len(part))
        probability = 1 / (1 + np.exp(-logits))
        predictions = pd.DataFrame(
            {"image": names[part.start : part.stop], "logit": logits, "probability": probability,
             "label": decision.answer(probability).label, "error": ""}
        )  # fmt: skip
        description = Description(
            shard=f"{number}/{_PARTS}", images=len(part), images_of_all=rows,
            names_sha256=names_sha256(images), models=[], ensemble="none", threshold=0.5,
            batch_size=_BATCH, frames=0, metadata=False,
        )  # fmt: skip
        (folder / str(number)).mkdir()
        with writing_tables(folder / str(number), description) as writer:
            writer.add(predictions)
    parts = tuple(str(folder / str(number)) for number in range(1, _PARTS + 1))
    size = sum(
        file.stat().st_size for part in parts for file in Path(part).iterdir() if file.is_file()
    )
    options = MergeOptions(files=parts, data=str(data), output=str(folder / "merged"))
    return lambda: merge_predictions(options), size


if __name__ == "__main__":
    main()

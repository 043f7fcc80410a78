"""Scoring by Ray Data against scoring in one process, on the same cores.

    python -m benchmarks.ray_engine [--arch resnet18] [--images 2000] [--rounds 5]

Both read the same JPEG files, in batches of 64, and keep the results in the same journal. One
process computes on all cores and reads by as many worker processes as `--workers auto` gives; Ray
has an actor on each core. A round of each follows a round of the other. What is compared is the
speed once both are under way, since a start takes the same time however many images follow: the
seconds until then are in the notes.
"""

import os
import statistics
import tempfile
import time
from itertools import cycle, islice
from pathlib import Path

from benchmarks.common import parser, random_detector, ratio, report
from synthdetect.datasets.manifest import load
from synthdetect.datasets.unlabelled import ListedFiles
from synthdetect.detectors.ray_engine import DetectorFile, ray_engine
from synthdetect.detectors.scoring import Engine, Local, Scoring
from synthdetect.training.devices import deterministic, resolve

BATCH = 64


def main() -> None:
    arguments = parser("Measure scoring by Ray.", rounds=5, needs=("scale",))
    arguments.add_argument("--arch", default="resnet18")
    arguments.add_argument("--image-size", type=int, default=224)
    arguments.add_argument("--images", type=int, default=2000, help="images per round")
    given = arguments.parse_args()
    cores = len(os.sched_getaffinity(0))
    if given.smoke:
        given.images, given.image_size, given.rounds, cores = 5 * BATCH, 32, 1, 1

    sample = load("sample")
    names = list(islice(cycle(sample.table["path"]), given.images))
    images = ListedFiles(sample.root, names)
    detector = random_detector(given.arch, given.image_size)
    device = resolve("cpu", "fp32", "auto")
    speeds: dict[str, list[float]] = {"local": [], "ray": []}
    starts: dict[str, list[float]] = {"local": [], "ray": []}
    with tempfile.TemporaryDirectory() as temporary:
        file = Path(temporary) / "detector.safetensors"
        detector.save(file)
        with ray_engine([DetectorFile(file, "single")], cores) as by_ray, deterministic(0):
            engines: dict[str, Engine] = {"local": Local([detector], device), "ray": by_ray}
            for number in range(given.rounds):
                for name, engine in engines.items():
                    folder = Path(temporary) / f"{name}{number}"
                    scoring = Scoring(folder, [detector], images, data="", batch_size=BATCH)
                    start, speed = measured(scoring, engine, cores)
                    starts[name].append(start)
                    speeds[name].append(speed)
    row = {
        "key": "ray_to_local",
        "what": f"{given.arch} at {given.image_size}: images per second and core, Ray",
        "against": "one process",
        "wanted": 0.9,
        **ratio(speeds, "ray", "local"),
        "images_per_second": speeds,
    }
    seconds = {name: statistics.median(values) for name, values in starts.items()}
    notes = (
        f"{given.rounds} rounds of {given.images:,} files, batch {BATCH}, {cores} core(s); until "
        f"under way {seconds['ray']:.0f} s by Ray and {seconds['local']:.0f} s in one process, "
        "without the start of Ray itself"
    )
    report("ray_engine", "ray_engine", [row], device, given.output, notes)


def measured(scoring: Scoring, engine: Engine, cores: int) -> tuple[float, float]:
    """Score, and return the seconds until it is under way and the images per second from then on.

    It is under way when every core has finished a batch.
    """
    times: list[tuple[int, float]] = []
    began = time.perf_counter()
    scoring.run(
        resolve("cpu", "fp32", "auto"),
        lambda done, total: times.append((done, time.perf_counter())),
        engine,
    )
    (first, under_way), (last, end) = times[cores - 1], times[-1]
    return under_way - began, (last - first) / (end - under_way)


if __name__ == "__main__":
    main()

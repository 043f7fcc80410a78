"""Training in several processes against one process with the same cores.

    python -m benchmarks.processes [--arch resnet18] [--processes 2] [--rounds 3]

Both divide their batches into the same parts and so train the same weights; one process computes
the parts one after another, with all cores, and the others at once, with a share of the cores each.
An undivided training in one process stands beside them. A round is one training; what is compared
are the seconds of its epochs after the first, in which the images come from the decoded-image
cache.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
from typing import Any

import mlflow

from benchmarks.common import parser, ratio, report
from synthdetect.runs.options import TrainOptions
from synthdetect.runs.preflight import resolve_device


def main() -> None:
    arguments = parser("Measure training in several processes.", rounds=3)
    arguments.add_argument("--arch", default="resnet18")
    arguments.add_argument("--image-size", type=int, default=224)
    arguments.add_argument("--images", type=int, default=256, help="images per epoch")
    arguments.add_argument("--epochs", type=int, default=4)
    arguments.add_argument("--processes", type=int, default=2)
    given = arguments.parse_args()
    if given.smoke:
        given.images, given.image_size, given.rounds, given.epochs = 32, 32, 1, 2
    count: int = given.processes
    values: dict[str, Any] = {
        "arch": given.arch, "image_size": given.image_size, "epochs": given.epochs, "seed": 0,
        "weights": "none", "max_images": given.images,
    }  # fmt: skip
    contenders = {
        "processes": {"shards": count, "processes": count},
        "one": {"shards": count},
        "undivided": {},
    }
    speeds: dict[str, list[float]] = {name: [] for name in contenders}
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(given.rounds):
            for name, further in contenders.items():
                speeds[name].append(_speed({**values, **further}, folder))
    device = resolve_device(TrainOptions.resolve(values).device, given.arch)
    what = f"{given.arch} at {given.image_size}, {device.precision}: epochs in {count} processes"
    rows = [
        {
            "key": f"processes_to_{name}",
            "what": what,
            "against": against,
            "wanted": wanted,
            **ratio(speeds, "processes", name),
            "images_per_second": speeds,
        }
        for name, against, wanted in (
            ("one", "one process with the same cores and parts", 0.9),
            ("undivided", "one process with the same cores and whole batches", 0.0),
        )
    ]
    notes = f"{given.images} images of the sample per epoch, {given.rounds} round(s), batch 32"
    report(f"processes_{given.arch}", "processes", rows, device, given.output, notes)


def _speed(values: dict[str, Any], folder: str) -> float:
    """Return images per second of a training's epochs after the first, the median."""
    given = [f"--{name.replace('_', '-')}={value}" for name, value in values.items()]
    environment = {
        **os.environ,
        "SYNTHDETECT_CACHE": f"{folder}/cache",
        "MLFLOW_TRACKING_URI": f"sqlite:///{folder}/mlflow.db",
        "PYTHONPATH": os.pathsep.join([os.getcwd(), os.environ.get("PYTHONPATH", "")]),
    }
    environment.pop("OMP_NUM_THREADS", None)  # both use all cores
    command = [sys.executable, "-m", "synthdetect", "train", *given, "--json"]
    done = subprocess.run(
        command, cwd=folder, env=environment, check=True, stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )  # fmt: skip
    client = mlflow.MlflowClient(environment["MLFLOW_TRACKING_URI"])
    history = client.get_metric_history(
        json.loads(done.stdout)["run_id"], "train/images_per_second"
    )
    return statistics.median(point.value for point in history if point.step > 1)


if __name__ == "__main__":
    main()

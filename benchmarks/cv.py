"""Five folds in one command against five training commands that decode every epoch anew.

    python -m benchmarks.cv [--epochs 3] [--rounds 1]

Whole processes, tracking included, on the sample, each contender with a cold cache of its own.
"""

import os
import subprocess
import sys
import tempfile
import time

from benchmarks.common import parser, ratio, report
from synthdetect.training.devices import resolve


def main() -> None:
    arguments = parser("cross-validation", rounds=1)
    arguments.add_argument("--arch", default="mobilenet_v3_large")
    arguments.add_argument("--image-size", type=int, default=96)
    arguments.add_argument("--epochs", type=int, default=3)
    arguments.add_argument("--folds", type=int, default=5)
    given = arguments.parse_args()
    if given.smoke:
        given.image_size, given.epochs, given.folds = 32, 1, 2

    options = [
        f"--arch={given.arch}", f"--image-size={given.image_size}", f"--epochs={given.epochs}",
        "--weights=none", "--keep-last=false",
    ]  # fmt: skip
    speeds: dict[str, list[float]] = {"cv": [], "runs": []}
    for _ in range(given.rounds):
        cv = [["cv", f"--folds={given.folds}", *options]]
        runs = [["train", "--cache-gib=0", *options]] * given.folds
        speeds["cv"].append(1 / _seconds(cv))
        speeds["runs"].append(1 / _seconds(runs))
    row = {
        "key": "cv_to_runs",
        "what": f"{given.arch} at {given.image_size}: {given.folds}-fold cv with the cache",
        "against": f"{given.folds} train commands without",
        "wanted": 1.0,
        **ratio(speeds, "cv", "runs"),
        "seconds": {name: [1 / value for value in values] for name, values in speeds.items()},
    }
    notes = f"{given.epochs} epochs a fold on the sample, {given.rounds} round(s), cold caches"
    device = resolve("auto", "auto", "auto")
    report("cross_validation", "cv", [row], device, given.output, notes)


def _seconds(commands: list[list[str]]) -> float:
    with tempfile.TemporaryDirectory() as folder:
        environment = {
            **os.environ,
            "SYNTHDETECT_CACHE": f"{folder}/cache",
            "MLFLOW_TRACKING_URI": f"sqlite:///{folder}/mlflow.db",
        }
        began = time.perf_counter()
        for command in commands:
            subprocess.run(
                [sys.executable, "-m", "synthdetect", *command],
                cwd=folder,
                env=environment,
                check=True,
                stdout=subprocess.DEVNULL,
            )
        return time.perf_counter() - began


if __name__ == "__main__":
    main()

"""The time until help is shown, and until a training has done its first step.

    python -m benchmarks.startup [--rounds 5]

Whole processes are measured. Help is compared with the start of Python plus 0.5 s, and the first
step with the import of torch, torchvision and mlflow. The process of the training exits after its
first batch.
"""

import statistics
import sys
import tempfile

from benchmarks.common import parser, report, row_of, seconds_of
from synthdetect.training.devices import resolve

_ALLOWED = 0.5  # seconds
_FIRST_STEP = """
import os, sys
from synthdetect.cli import main
from synthdetect.system.console import TrainingBar
TrainingBar.batch = lambda self, images, loss: os._exit(0)
sys.exit(main(["train", "--arch=mobilenet_v3_large", "--image-size=32", "--weights=none"]) or 1)
"""


def main() -> None:
    arguments = parser("Measure the time to help and to the first training step.", rounds=5)
    given = arguments.parse_args()
    if given.smoke:
        given.rounds = 1
    commands = {
        "python": [sys.executable, "-c", "pass"],
        "help": [sys.executable, "-m", "synthdetect", "--help"],
        "imports": [sys.executable, "-c", "import torch, torchvision, mlflow"],
        "first step": [sys.executable, "-c", _FIRST_STEP],
    }
    seconds: dict[str, list[float]] = {name: [] for name in commands}
    with tempfile.TemporaryDirectory() as folder:
        for number in range(given.rounds + 1):
            for name, command in commands.items():
                took = seconds_of(command, folder)
                if number:  # the first round fills the caches of files and decoded images
                    seconds[name].append(took)
    rows = [
        row_of("help", "synthdetect --help", f"python's start and {_ALLOWED:g} s", 1.0,
             [(p + _ALLOWED) / h for p, h in zip(seconds["python"], seconds["help"], strict=True)]),
        row_of("first_step", "synthdetect train, to its first step",
             "importing torch, torchvision and mlflow", 1 / 1.5,
             [i / s for i, s in zip(seconds["imports"], seconds["first step"], strict=True)]),
    ]  # fmt: skip
    middle = ", ".join(f"{name} {statistics.median(took):.2f} s" for name, took in seconds.items())
    notes = f"{given.rounds} rounds of whole processes; medians: {middle}"
    report("startup", "startup", rows, resolve("auto", "auto", "auto"), given.output, notes)


if __name__ == "__main__":
    main()

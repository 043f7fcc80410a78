"""Run all benchmarks, one after another, and write `docs/performance.md`.

    python -m benchmarks --model RUN_ID|FILE [--only training,cache]

It takes two to three hours on two cores, which should be otherwise idle. The model is a trained
detector; the benchmark of the engines measures how they change its AUC.
"""

import argparse
import subprocess
import sys

from benchmarks.summary import write_page

COMMANDS = (
    "startup",
    "step",
    "processes",
    "training",
    "training --arch resnet50 --rounds 6",
    "gpu",
    "cache",
    "reading",
    "inference",
    "ray_engine",
    "billion",
    "peers",
    "engines",
    "serving",
    "load --peers build/peers",
    "tracking",
    "cv",
    "sweep",
    "scaling",
    "shards",
    "verdicts",
    "cross_fitting --rounds 500",
    "intervals",
    "adaptation",
    "front_ends",
)
"""All benchmarks, with the options of the results on the page."""


def main() -> None:
    arguments = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    arguments.add_argument("--model", required=True, help="trained detector: a run id or a file")
    arguments.add_argument(
        "--only", default="", help="benchmarks to run, separated by commas (default: all)"
    )
    given = arguments.parse_args()
    only = given.only.split(",") if given.only else [line.split()[0] for line in COMMANDS]
    unknown = set(only) - {line.split()[0] for line in COMMANDS}
    if unknown:
        arguments.error(f"--only: unknown benchmarks: {', '.join(sorted(unknown))}")
    for line in COMMANDS:
        script, *options = line.split()
        if script in only:
            if script == "engines":
                options += ["--model", given.model]
            command = [sys.executable, "-m", f"benchmarks.{script}", *options]
            print("python -m", *command[2:], flush=True)
            subprocess.run(command, check=True)
    write_page()


if __name__ == "__main__":
    main()

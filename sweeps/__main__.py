"""`python -m sweeps`: the command line of `mlflow run . -e sweep`."""

import sys

from sweeps.options import SweepOptions
from synthdetect.cli import Command, main

COMMANDS = {
    "sweep": Command(
        SweepOptions,
        "sweeps.study:sweep",
        "tune strategies alike and compare them with a baseline",
        project=True,
    )
}

if __name__ == "__main__":
    sys.exit(main(program="sweeps", commands=COMMANDS))

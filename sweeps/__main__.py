"""`python -m sweeps`: the command line of `mlflow run . -e sweep` and `-e reproduce`."""

import sys
from dataclasses import replace

from sweeps.options import SweepOptions
from synthdetect.cli import COMMANDS as OWN
from synthdetect.cli import Command, main

COMMANDS = {
    "sweep": Command(
        SweepOptions,
        "sweeps.study:sweep",
        "tune strategies alike and compare them with a baseline",
        project=True,
    ),
    "reproduce": replace(OWN["reproduce"], function="sweeps.reproduce:reproduce_any"),
}

if __name__ == "__main__":
    sys.exit(main(program="sweeps", commands=COMMANDS))

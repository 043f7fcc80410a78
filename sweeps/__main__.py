"""`python -m sweeps`: the sweep and reproduce commands in a checkout that is not installed.

The entry points of `MLproject` use it, since `mlflow run` does not install the package.
"""

import sys
from dataclasses import replace

from sweeps.extension import EXTENSION
from synthdetect.cli import main
from synthdetect.commands.catalogue import COMMANDS as PROGRAM

COMMANDS = {
    **EXTENSION.commands,
    "reproduce": replace(PROGRAM["reproduce"], function="sweeps.reproduce:reproduce"),
}
"""Commands by name."""

if __name__ == "__main__":
    sys.exit(main(program="sweeps", commands=COMMANDS))

"""Print `MLproject`, with the sweep as an entry point: `python -m sweeps.project > MLproject`."""

from sweeps.__main__ import COMMANDS
from synthdetect.commands.project import render

if __name__ == "__main__":
    print(render({"sweeps": COMMANDS}), end="")

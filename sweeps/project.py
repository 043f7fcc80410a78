"""`MLproject`, with the sweep among its entry points: `python -m sweeps.project > MLproject`."""

from sweeps.__main__ import COMMANDS
from synthdetect.commands.project import render

if __name__ == "__main__":
    print(render({"sweeps": COMMANDS}), end="")

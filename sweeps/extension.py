"""What this package adds to the `synthdetect` program once it is installed.

`pyproject.toml` declares `EXTENSION` as an entry point of `synthdetect.extensions`.
"""

from sweeps.kinds import RUN_KINDS
from sweeps.options import SweepOptions
from synthdetect.commands.command import Command
from synthdetect.commands.extensions import Extension

EXTENSION = Extension(
    commands={
        "sweep": Command(
            SweepOptions,
            "sweeps.study:sweep",
            "tune training strategies alike and compare them with a baseline",
            project=True,
        )
    },
    run_kinds=RUN_KINDS,
)

"""`synthdetect reproduce`: a recorded run once more, whichever command made it."""

from collections.abc import Iterable
from typing import Any

from synthdetect.commands.extensions import Extension, installed_extensions
from synthdetect.reproduction.options import ReproduceOptions
from synthdetect.reproduction.reproduce import reproduce
from synthdetect.runs.kinds import RUN_KINDS


def reproduce_run(
    options: ReproduceOptions, extensions: Iterable[Extension] | None = None
) -> dict[str, Any]:
    """Rerun a recorded run and compare the results.

    Args:
        options: Which run, and how.
        extensions: Extensions whose kinds of runs are known too; None means the installed ones.
    """
    extensions = installed_extensions() if extensions is None else extensions
    added = {name: kind for one in extensions for name, kind in one.run_kinds.items()}
    return reproduce(options, {**added, **RUN_KINDS})

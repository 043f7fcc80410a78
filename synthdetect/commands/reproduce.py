"""`synthdetect reproduce`: a recorded run once more, whichever command made it."""

from synthdetect.reproduction.options import ReproduceOptions
from synthdetect.reproduction.reproduce import reproduce
from synthdetect.runs.kinds import RUN_KINDS


def reproduce_run(options: ReproduceOptions) -> None:
    """Rerun a recorded run and compare the results."""
    reproduce(options, RUN_KINDS)

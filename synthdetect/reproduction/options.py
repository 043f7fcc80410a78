"""The options of `synthdetect reproduce`."""

from typing import ClassVar, Literal

from pydantic.dataclasses import dataclass

from synthdetect.config.options import CHECKED, Affects, Options, nested, option
from synthdetect.tracking.options import TrackingOptions


@dataclass(frozen=True, kw_only=True, config=CHECKED)
class ReproduceOptions(Options):
    """Run a recorded run again from its record, and say whether the results are the same.

    Exit status 0: reproduced; 1: not reproduced; 2: the run cannot be run again, or its data
    have changed.
    """

    section: ClassVar = "reproduce"

    tracking: TrackingOptions = nested(TrackingOptions)
    run_id: str = option(
        "",
        "The run: a training, a cross-validation, or a run inside one or inside a sweep.",
        value="RUN_ID",
    )
    data: str = option(
        "", "Where its images are now (default: where they were).", Affects.PLACE, value="PATH"
    )
    on_changed_data: Literal["stop", "train"] = option(
        "stop", "What to do if the data have changed: stop, or train on the changed data."
    )
    tolerance: float = option(
        0.0,
        "Largest difference of a final metric at which a run counts as reproduced (0: every "
        "weight, metric and prediction must be equal).",
        ge=0,
    )
    output: str = option(
        "runs", "Folder for checkpoints while it trains.", Affects.RECORD, value="FOLDER"
    )

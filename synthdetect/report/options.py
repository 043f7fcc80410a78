"""The options of `synthdetect report`."""

from pydantic.dataclasses import dataclass

from synthdetect.config.options import CHECKED, Options, option, required


@dataclass(frozen=True, kw_only=True, config=CHECKED)
class ReportOptions(Options):
    """Make the report of a run, one self-contained page, and log it as an artifact of the run."""

    run_id: str = required("The run.", value="RUN_ID")
    output: str = option("", "File to write the page to as well.", value="FILE")

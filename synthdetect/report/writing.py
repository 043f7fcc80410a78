"""Write the report of a run and log it to the run."""

from synthdetect.report.contents import REPORT, build
from synthdetect.report.page import render
from synthdetect.report.record import READ
from synthdetect.report.text import clean
from synthdetect.system.console import console
from synthdetect.tracking.opening import keep_status
from synthdetect.tracking.records import collected, log_page


class ReportFailed(RuntimeError):
    """The report of a run could not be written; the run itself is complete."""


def log_report(run_id: str) -> str:
    """Build a run's report from its record, log it as an artifact, and print where it is.

    Returns:
        The HTML page.

    Raises:
        UserError: If there is no such run.
    """
    with collected(run_id, READ) as record:
        html = render(build(record))
    uri = log_page(run_id, html, REPORT)
    console.print(f"report       {clean(uri)}")
    return html


def write_report(run_id: str) -> None:
    """Write the report of a run that a command has just finished.

    The results of the run are complete. Therefore a failure here leaves the run's status as it is,
    even under `mlflow run`, which sets the status by the exit status of the process.

    Raises:
        ReportFailed: If the report could not be built or logged.
    """
    try:
        log_report(run_id)
    except BaseException as error:
        keep_status(run_id)
        if not isinstance(error, Exception):  # an interrupt
            raise
        raise ReportFailed(
            f"Run {run_id} has finished, but its report could not be written: "
            f"{type(error).__name__}: {clean(str(error))}. "
            f"Write it with: synthdetect report {run_id}"
        ) from error

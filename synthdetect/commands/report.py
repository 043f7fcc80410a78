"""`synthdetect report`, and the same at the end of other commands."""

from pathlib import Path

from synthdetect.report.collect import collected, log_page
from synthdetect.report.contents import REPORT, build
from synthdetect.report.options import ReportOptions
from synthdetect.report.page import render
from synthdetect.report.text import clean
from synthdetect.system.console import console
from synthdetect.system.files import replace_atomically, require_file
from synthdetect.tracking.run import keep_status


class ReportFailed(RuntimeError):
    """A run is as it was, but has no report."""


def report(options: ReportOptions) -> None:
    """Make a run's report anew and say where it is.

    Raises:
        UserError: there is no such run.
    """
    file = Path(options.output).expanduser()
    if options.output:
        require_file(file, "--output")
    html = _log(options.run_id)
    if options.output:
        file.parent.mkdir(parents=True, exist_ok=True)
        with replace_atomically(file) as temporary:
            temporary.write_text(html, encoding="utf-8")
        console.print(f"wrote {file}")


def write_report(run_id: str) -> None:
    """Make the report of a run that has just ended.

    The run's results are safe by now, so whatever happens here leaves its status alone; under
    `mlflow run` too, which takes the exit status for the run's.

    Raises:
        ReportFailed: the report could not be made or logged.
    """
    try:
        _log(run_id)
    except BaseException as error:
        keep_status(run_id)
        if not isinstance(error, Exception):  # an interrupt
            raise
        raise ReportFailed(
            f"run {run_id} has ended well, but its report could not be made: "
            f"{type(error).__name__}: {clean(str(error))}. "
            f"Make it with: synthdetect report {run_id}"
        ) from error


def _log(run_id: str) -> str:
    with collected(run_id) as record:
        html = render(build(record))
    where = log_page(run_id, html, REPORT)
    console.print(f"report       {clean(where)}")
    return html

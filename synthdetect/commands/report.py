"""The command `synthdetect report`."""

from pathlib import Path
from typing import Any

from synthdetect.report.options import ReportOptions
from synthdetect.report.writing import log_report
from synthdetect.system.console import console
from synthdetect.system.files import replace_atomically, require_file


def report(options: ReportOptions) -> dict[str, Any]:
    """Write the report of a recorded run, replacing an earlier one.

    Raises:
        UserError: If there is no such run, or `--output` cannot be written.
    """
    file = Path(options.output).expanduser()
    if options.output:
        require_file(file, "--output")
    html = log_report(options.run_id)
    if options.output:
        file.parent.mkdir(parents=True, exist_ok=True)
        with replace_atomically(file) as temporary:
            temporary.write_text(html, encoding="utf-8")
        console.print(f"wrote {file}")
    return {"run_id": options.run_id, "bytes": len(html.encode()), "file": options.output or None}

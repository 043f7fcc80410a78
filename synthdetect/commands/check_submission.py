"""The command `synthdetect check-submission`."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

from synthdetect.submission.checking import check_submission
from synthdetect.submission.image_ids import image_ids_of
from synthdetect.submission.options import CheckSubmissionOptions
from synthdetect.submission.printing import print_findings
from synthdetect.system.console import console
from synthdetect.system.errors import UserError


def check(options: CheckSubmissionOptions) -> dict[str, Any]:
    """Print everything that is wrong with a run file.

    Raises:
        UserError: If the file has errors or cannot be read.
    """
    findings = check_submission(
        Path(options.file),
        image_ids=image_ids_of(Path(options.images)) if options.images else None,
        edition=options.edition or None,
        other=Path(options.other) if options.other else None,
    )
    print_findings(findings)
    listed = [{**asdict(finding), "severity": finding.severity} for finding in findings]
    result = {"file": options.file, "findings": listed}
    errors = sum(finding.severity == "error" for finding in findings)
    if errors:
        raise UserError(f"{options.file}: {errors} error(s), listed above.", result)
    console.print(f"{options.file}: no errors")
    if not options.images:
        console.print("Give the test images by --images to check that the file has all of them.")
    return result

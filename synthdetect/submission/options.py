"""The options of `synthdetect check-submission`."""

from typing import Literal

from pydantic.dataclasses import dataclass

from synthdetect.config.options import CHECKED, Options, option, required


@dataclass(frozen=True, kw_only=True, config=CHECKED)
class CheckSubmissionOptions(Options):
    """Find every fault of a MediaEval run file (image_id,prob,label,threshold).

    Exit status 0: no errors, perhaps warnings; 2: errors.
    """

    file: str = required("The run file: .zip (2025) or .csv (2026).", value="FILE")
    images: str = option(
        "", "The test images: a folder or an archive, of which only names matter.", value="PATH"
    )
    edition: Literal["", "2025", "2026"] = option(
        "", "Edition of MediaEval (default: by the suffix of the file)."
    )
    other: str = option("", "The other run file of the team, which must differ.", value="FILE")

"""The faults that a run file may have, and a collection of those that were found."""

from collections import Counter
from dataclasses import dataclass
from typing import Literal

from synthdetect.submission.format import COLUMNS

EXAMPLES = 5
"""Number of examples that a finding gives."""

_HEADER = ",".join(COLUMNS)


@dataclass(frozen=True)
class Fault:
    """A kind of fault. An error makes a file unfit for submission; a warning needs a look."""

    what: str
    remedy: str
    severity: Literal["error", "warning"] = "error"


FAULTS = {
    "edition-mismatch": Fault("The edition asks for another kind of file", "Write the run again"),
    "file-name": Fault(
        "The file is not named <team>_constrained or <team>_open with .zip (2025) or .csv (2026)",
        "Rename it, in exactly this spelling",
    ),
    "team-name": Fault(
        "The name of the team has other characters than letters, digits and hyphens",
        "Use a plain name, so that no part of it is mistaken for another part of the file name",
        "warning",
    ),
    "zip-members": Fault(
        "The ZIP does not hold exactly one file, a .csv", "Put only the CSV of the run in it"
    ),
    "inner-name": Fault(
        "The CSV in the ZIP is not named like the ZIP", "Give both the same name", "warning"
    ),
    "unreadable": Fault("The file cannot be read to its end", "The rest was not checked"),
    "bom": Fault(
        "The text begins with a byte order mark, which becomes part of the first column's name",
        "Save the CSV as UTF-8 without BOM",
    ),
    "header": Fault(
        "The first line is not the header", f"It must be exactly {_HEADER}, separated by commas"
    ),
    "blank-lines": Fault("There are blank lines", "Remove them"),
    "field-count": Fault(
        "A row has another number of fields than the header",
        "Give every row each field once, with a decimal point and not a decimal comma",
    ),
    "id-spelling": Fault(
        "image_id is not spelt like the file name of an image",
        "Write the file name with its extension, without folders, and without spaces around it",
    ),
    "duplicate-ids": Fault("Images are predicted twice", "Keep one row per image"),
    "missing-ids": Fault("Images of the test set have no prediction", "Give one row per image"),
    "extra-ids": Fault(
        "Images are not in the test set",
        "Remove these rows, or write each image_id as the file is named",
    ),
    "prob-value": Fault(
        "prob is not a number from 0 to 1", "Write a probability like 0.876, not a logit"
    ),
    "label-value": Fault("label is neither 0 nor 1", "Write only 0 (real) or 1 (synthetic)"),
    "label-contradicts": Fault(
        "label contradicts prob and threshold",
        "Write 1 exactly if prob >= threshold, compared as they are written in the file",
    ),
    "threshold-value": Fault("threshold is not a number from 0 to 1", "Write it like 0.5"),
    "threshold-several": Fault("There are several thresholds", "Repeat one in every row"),
    "threshold-noise": Fault(
        "threshold has the rounding noise of a floating-point number",
        "Round it where it is chosen, and compute the labels again",
        "warning",
    ),
    "positive-share": Fault(
        "The share of images labelled synthetic is implausible",
        "Check the threshold, and that prob is of synthetic and not of real",
        "warning",
    ),
    "constant-prob": Fault("prob is the same for all images", "Check the model", "warning"),
    "other-unreadable": Fault("The other run could not be compared", "Check it by itself first"),
    "same-as-other": Fault(
        "The other run has the same probabilities",
        "The constrained and the open run must come from different models",
    ),
}
"""All faults that are looked for, by code, in the order in which they are reported."""


@dataclass(frozen=True)
class Finding:
    """A fault of a run file.

    Attributes:
        code: Key of `FAULTS`.
        message: What is wrong, how often, the first examples with their lines, and the remedy.
    """

    code: str
    message: str

    @property
    def severity(self) -> str:
        """`error` or `warning`."""
        return FAULTS[self.code].severity


class Faults:
    """Collects the faults of a file: how often each occurs, and its first examples."""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()
        self._examples: dict[str, list[str]] = {}

    def add(self, code: str, example: str = "") -> None:
        """Add a fault of the file."""
        self._counts[code] += 1
        examples = self._examples.setdefault(code, [])
        if example and len(examples) < EXAMPLES:
            examples.append(example)

    def add_row(self, code: str, line: int, image_id: str, detail: str = "") -> None:
        """Add a fault of a row."""
        if self._counts[code] >= EXAMPLES:  # skips formatting what is not shown
            self._counts[code] += 1
        else:
            self.add(code, f"line {line} ({quoted(image_id)}{': ' if detail else ''}{detail})")

    def findings(self) -> list[Finding]:
        """Return one finding for each kind of fault, in the order of `FAULTS`."""
        return [Finding(code, self._message(code)) for code in FAULTS if code in self._counts]

    def _message(self, code: str) -> str:
        count, examples = self._counts[code], self._examples[code]
        message = FAULTS[code].what
        if count > 1:
            message += f" ({count:,})"
        if examples:
            message += ": " + ", ".join(examples)
        if count > len(examples) > 0:
            message += " and more"
        return f"{message}. {FAULTS[code].remedy}."


def quoted(text: str) -> str:
    """Shorten a text for a message and escape characters that a terminal would interpret."""
    return repr(text if len(text) <= 60 else f"{text[:57]}...")

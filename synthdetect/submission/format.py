"""Format of a run file of the MediaEval synthetic-images task (SynthIM, Task A).

A run file is a CSV with the header `image_id,prob,label,threshold` and one row per test image:

* `image_id`: file name of the image, with its extension and without folders;
* `prob`: probability that the image is synthetic, 0.0 to 1.0;
* `label`: 1 (synthetic) if `prob >= threshold`, else 0 (real);
* `threshold`: one number for the whole run, repeated in every row.

The 2025 edition asks for a ZIP archive that holds only the CSV, the 2026 edition for the CSV
itself. Both are named `<team>_<run>`. The task does not define the label of `prob == threshold`;
the files submitted to it use `>=`.

Source: README of MediaEval 2025 SynthIM (mever-team/mediaeval2025-sid) and of MediaEval 2026
SynthIM (mever-team/mediaeval2026-sid).
"""

import re
from dataclasses import dataclass
from typing import Literal

from synthdetect.system.errors import UserError

COLUMNS = ("image_id", "prob", "label", "threshold")
RUNS = ("constrained", "open")

TEAM_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9-]{0,63}")
"""Names of a team. They have no "_", which therefore always ends the name in a file name."""


@dataclass(frozen=True)
class Edition:
    """The file that one year's task asks for."""

    name: str
    suffix: Literal[".zip", ".csv"]

    def file_name(self, team: str, run: str) -> str:
        """Return the name of a run file."""
        return f"{team}_{run}{self.suffix}"


EDITIONS = {"2025": Edition("2025", ".zip"), "2026": Edition("2026", ".csv")}


def edition_named(name: str) -> Edition:
    """Return an edition by its year.

    Raises:
        UserError: If there is no such edition.
    """
    if name not in EDITIONS:
        raise UserError(f"--edition: {name!r} is unknown. Use one of {', '.join(EDITIONS)}.")
    return EDITIONS[name]

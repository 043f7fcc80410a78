"""The result of an audit: findings and tables."""

from dataclasses import dataclass
from typing import NamedTuple

import pandas as pd

WARNING, NOTE = "warning", "note"

UNSPLIT = "unsplit"
"""The name of the split of images that have none."""

ALL_METADATA = "together"
"""The property in the table `baseline` that stands for all metadata together."""


class Finding(NamedTuple):
    """A row of `Audit.findings`."""

    severity: str
    name: str
    finding: str
    value: float
    advice: str


@dataclass(frozen=True)
class Audit:
    """The result of an audit.

    Attributes:
        findings: One row per finding, warnings first: `severity` (warning or note), `name`,
            `finding` (a sentence), `value` (the AUC, share or number in the sentence), `advice`.
        tables: Tables by name. The table of a property has one row for each value and part of the
            data: `part`, `value`, the counts `real` and `synthetic`, and their shares `real_share`
            and `synthetic_share`.
            `baseline` has `part`, `property`, `auc`, `low` and `high` (95 % confidence interval),
            `p` (probability of so high an AUC by chance), `sources`, `images`, and `of_images`
            (the number of images before sampling).
            `duplicates` has `kind` (exact or near), `distance` (differing bits of 256), and `path`,
            `split` and `label` of both images. `unreadable` has `path` and `error`.
    """

    findings: pd.DataFrame
    tables: dict[str, pd.DataFrame]

    @property
    def warnings(self) -> list[str]:
        """The names of the warnings, each once."""
        found = self.findings
        return list(dict.fromkeys(found.loc[found["severity"] == WARNING, "name"]))

    @property
    def metadata_auc(self) -> float:
        """The highest AUC of all metadata together in any part; nan if none was measured."""
        table = self.tables["baseline"]
        return float(table.loc[table["property"] == ALL_METADATA, "auc"].max())

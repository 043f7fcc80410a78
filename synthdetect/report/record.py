"""Access to the artifacts of a collected run, and which of them the report shows."""

import csv
import json
from fnmatch import fnmatchcase
from typing import Any

import pandas as pd

from synthdetect.report.page import is_png
from synthdetect.tracking.records import RunRecord

READ = (".csv", ".json", ".png")
"""Suffixes of the artifacts that a report reads."""

_FIGURES_LIMIT = 24 * 2**20  # greatest size of all figures of a page, in bytes


class Artifacts:
    """Artifacts of a run, and which of them the report shows already.

    Sections take the artifacts that they show. The last section lists all others.
    """

    def __init__(self, record: RunRecord) -> None:
        self._folder, self._sizes = record.folder, record.sizes
        self._taken: set[str] = set()
        self._figures = 0

    def find(self, *patterns: str) -> list[str]:
        """Paths not yet taken that match one of the patterns, ordered by pattern."""
        paths = self.remaining()
        found = [path for pattern in patterns for path in paths if fnmatchcase(path, pattern)]
        return list(dict.fromkeys(found))

    def remaining(self) -> list[str]:
        """All paths that have not been taken, sorted."""
        return sorted(set(self._sizes) - self._taken)

    def size(self, path: str) -> int:
        """Size of an artifact in bytes."""
        return self._sizes[path]

    def table(self, path: str, columns: tuple[str, ...] = ()) -> pd.DataFrame | None:
        """Read a CSV file as text without taking it.

        Args:
            path: Path of the artifact.
            columns: Columns to read, as far as they exist; empty for all.

        Returns:
            The table, or None if there is no such artifact or it cannot be parsed.
        """
        try:
            wanted = (lambda name: name in columns) if columns else None
            return pd.read_csv(
                self._folder / path, dtype=str, keep_default_na=False, usecols=wanted
            )
        except (OSError, ValueError):
            return None

    def take_table(self, path: str) -> pd.DataFrame | None:
        """Read and take a CSV file; None, without taking it, if it is missing or empty."""
        table = self.table(path)
        if table is None or table.empty:
            return None
        self._taken.add(path)
        return table

    def take_figure(self, path: str) -> bytes | None:
        """Read and take a figure; None if it is not a PNG file or the page's limit is reached."""
        try:
            content = (self._folder / path).read_bytes()
        except OSError:
            return None
        if not is_png(content) or self._figures + len(content) > _FIGURES_LIMIT:
            return None
        self._figures += len(content)
        self._taken.add(path)
        return content

    def json(self, path: str) -> dict[str, Any]:
        """Read a JSON object without taking it; empty if there is none."""
        try:
            value = json.loads((self._folder / path).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return value if isinstance(value, dict) else {}

    def rows(self, path: str) -> int | None:
        """Number of rows of a CSV file without its header; None if it cannot be parsed."""
        try:
            with (self._folder / path).open(newline="", encoding="utf-8") as file:
                return max(0, sum(1 for _ in csv.reader(file)) - 1)
        except (OSError, ValueError, csv.Error):
            return None

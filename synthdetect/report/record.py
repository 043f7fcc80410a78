"""A run as plain data: what a report is made from, wherever the run is kept."""

import csv
import json
from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import pandas as pd

from synthdetect.report.page import is_png

READ = (".csv", ".json", ".png")
"""Suffixes of the artifacts that a report reads."""

_FIGURES_LIMIT = 24 * 2**20  # bytes of pictures in one page


@dataclass(frozen=True)
class ChildRun:
    """A run inside another.

    Attributes:
        id: its run id.
        name: for people.
        status: FINISHED, FAILED and so on.
        params: as logged.
        metrics: the last value of each.
        tags: as set.
    """

    id: str
    name: str
    status: str
    params: Mapping[str, str]
    metrics: Mapping[str, float]
    tags: Mapping[str, str]


@dataclass(frozen=True)
class RunRecord(ChildRun):
    """A run with its artifacts.

    Attributes:
        started: date and time in UTC.
        seconds: how long it took; nan while it runs.
        sizes: of every artifact by path, in bytes.
        folder: where those with a suffix of `READ` lie, under their paths.
        children: the runs inside it, in the order in which they were started.
    """

    started: str
    seconds: float
    sizes: Mapping[str, int]
    folder: Path
    children: tuple[ChildRun, ...] = ()


class Artifacts:
    """A run's artifacts. What has been taken is shown; what is left is named at the end."""

    def __init__(self, record: RunRecord) -> None:
        self._folder, self._sizes = record.folder, record.sizes
        self._taken: set[str] = set()
        self._figures = 0

    def find(self, *patterns: str) -> list[str]:
        """Paths not yet taken that match one of the patterns, pattern after pattern."""
        left = self.left()
        found = [path for pattern in patterns for path in left if fnmatchcase(path, pattern)]
        return list(dict.fromkeys(found))

    def left(self) -> list[str]:
        """All paths that have not been taken, sorted."""
        return sorted(set(self._sizes) - self._taken)

    def size(self, path: str) -> int:
        """In bytes."""
        return self._sizes[path]

    def table(self, path: str, columns: tuple[str, ...] = ()) -> pd.DataFrame | None:
        """A CSV as text, without taking it; None where it is not there or is no table.

        Args:
            path: of the artifact.
            columns: to read only these, those that it has.
        """
        try:
            wanted = (lambda name: name in columns) if columns else None
            return pd.read_csv(
                self._folder / path, dtype=str, keep_default_na=False, usecols=wanted
            )
        except (OSError, ValueError):
            return None

    def take_table(self, path: str) -> pd.DataFrame | None:
        """The same, taken; a table without rows or columns counts as none and stays."""
        table = self.table(path)
        if table is None or table.empty:
            return None
        self._taken.add(path)
        return table

    def take_figure(self, path: str) -> bytes | None:
        """A picture's content; None where it is no PNG, or one too many for a page."""
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
        """A JSON object, without taking it; empty where there is none."""
        try:
            value = json.loads((self._folder / path).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return value if isinstance(value, dict) else {}

    def rows(self, path: str) -> int | None:
        """Rows of a CSV, its head not counted; None where it cannot be read as one."""
        try:
            with (self._folder / path).open(newline="", encoding="utf-8") as file:
                return max(0, sum(1 for _ in csv.reader(file)) - 1)
        except (OSError, ValueError, csv.Error):
            return None

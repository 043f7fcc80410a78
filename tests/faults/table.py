"""Writes what was tried, and what came of it, into docs/reliability.md.

pytest tests/faults --junitxml=faults.xml
python -m tests.faults.kills --output kills.json
python -m tests.faults.load --output load.json
python -m tests.faults.table faults.xml kills.json load.json        (or some of them)
"""

import importlib
import json
import re
import sys
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

DOCUMENT = Path(__file__).parents[2] / "docs" / "reliability.md"

FILES = {
    "test_bad_images": "Images",
    "test_bad_manifests": "Tables: manifests, predictions, lists, folds",
    "test_bad_options": "Options",
    "test_bad_checkpoints": "Detectors, checkpoints, weights, records of runs",
    "test_bad_archives": "Archives",
    "test_bad_storage": "Databases of studies and of MLflow",
    "test_trust": "Trust",
}

_TAKEN = ("read", "taken for a file's name", "scores by its weights alone")
_FOLDER = re.compile(
    r"/[^\s'\"]*?/pytest-of-[^/\s]+/pytest-\d+/(?:popen-gw\d+/)?(?:[^/\s]+/)?(?:work/)?"
)
_ID = re.compile(r"\b(?:m-)?[0-9a-f]{32}\b")
_LONGEST = 150


@dataclass
class Row:
    """One test with all its cases."""

    tried: str
    cases: int = 0
    failed: int = 0
    said: list[str] = field(default_factory=list)

    @property
    def came(self) -> str:
        """What came of it: how many were taken for what they seem, and a message."""
        if self.failed:
            return f"**{self.failed} failed**"
        refused = [text for text in self.said if text not in _TAKEN]
        taken = len(self.said) - len(refused)
        parts = [f"{taken} taken, as harmless"] if taken else []
        if refused:
            parts.append(f"{len(refused)} refused: `{_short(min(refused, key=_fitness))}`")
        return "; ".join(parts) or "as it must be"


def main(files: list[Path]) -> None:
    """Put the tables of these results into the document, in the place of the former ones."""
    for file in files:
        if file.suffix == ".xml":
            _put("bad input", _bad_input(ElementTree.parse(file).getroot()))
        else:
            result = json.loads(file.read_text())
            if isinstance(result, list):
                _put("kills", _kills(result))
            else:
                _put("load", _load(result))


def _put(section: str, tables: str) -> None:
    begin, end = (
        f"<!-- {section}: written by tests/faults/table.py -->",
        f"<!-- end of {section} -->",
    )
    text = DOCUMENT.read_text()
    after, until = text.index(begin) + len(begin), text.index(end)
    DOCUMENT.write_text(f"{text[:after]}\n\n{tables}{text[until:]}")


def _kills(results: list[dict[str, Any]]) -> str:
    lines = [
        "| command | signal | hit | in a write | came to its end | what was left in the end |",
        "| --- | --- | ---: | ---: | ---: | --- |",
    ]
    for found in results:
        came = "the same, bit for bit" if not found["faults"] else f"**{found['faults'][0]}**"
        counts = f"{found['kills']} | {found['writing']} | {found['rounds']} times"
        lines.append(f"| {found['command']} | SIG{found['signal']} | {counts} | {came} |")
    return "\n".join(lines) + "\n\n"


def _load(result: dict[str, Any]) -> str:
    lines = ["| figure | |", "| --- | ---: |"]
    lines += [
        f"| {name} | {value:,.{0 if value > 100 else 2}f} |"
        for name, value in result["figures"].items()
    ]
    lines += ["", "| abuse: answer | times |", "| --- | ---: |"]
    lines += [f"| {name} | {count} |" for name, count in result["refused"].items()]
    faults = ", ".join(f"**{name}** ({count})" for name, count in result["faults"].items())
    return "\n".join(lines) + f"\n\nOther than it must be: {faults or 'nothing'}.\n\n"


def _bad_input(report: ElementTree.Element) -> str:
    rows = _rows(report)
    return "".join(_section(file, rows) for file in FILES)


def _rows(report: ElementTree.Element) -> dict[str, dict[str, Row]]:
    """The rows of each file, by the test's name."""
    rows: dict[str, dict[str, Row]] = {file: {} for file in FILES}
    for case in report.iter("testcase"):
        module = case.get("classname", "")
        file, name = module.rpartition(".")[2], case.get("name", "").partition("[")[0]
        if file not in rows:
            continue
        tried = getattr(importlib.import_module(module), name).__doc__
        row = rows[file].setdefault(name, Row(tried.strip().rstrip(".")))
        row.cases += 1
        row.failed += any(case.find(kind) is not None for kind in ("failure", "error"))
        row.said += _said(case)
    return rows


def _said(case: ElementTree.Element) -> Iterator[str]:
    for found in case.iter("property"):
        if found.get("name") == "said":
            yield _ID.sub("ID", _FOLDER.sub("", found.get("value", "")))


def _section(file: str, rows: dict[str, dict[str, Row]]) -> str:
    cases = sum(row.cases for row in rows[file].values())
    lines = [
        f"### {FILES[file]} ({cases} cases)",
        "",
        "| tried | cases | came of it |",
        "| --- | ---: | --- |",
    ]
    lines += [f"| {row.tried} | {row.cases} | {row.came} |" for row in rows[file].values()]
    return "\n".join(lines) + "\n\n"


def _fitness(text: str) -> tuple[bool, int]:
    """Short enough to be shown whole, and then rather long."""
    return len(text) > _LONGEST, -len(text)


def _short(text: str) -> str:
    line = " ".join(text.split()).replace("|", "/").replace("`", "'")
    return line if len(line) <= _LONGEST else f"{line[:_LONGEST]}..."


if __name__ == "__main__":
    main([Path(name) for name in sys.argv[1:]])

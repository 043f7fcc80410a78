"""Data structures of a report, and its rendering as one self-contained HTML page.

This module is independent of what is reported. All text is cleaned and escaped when the page is
rendered, so that names of files or generators cannot inject markup. The page needs no other file;
its content security policy forbids loading any, and running any script but `report.js`.
"""

import base64
import hashlib
import re
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from synthdetect.report.pictures import encoded
from synthdetect.report.text import UNDEFINED, clean

_PNG = b"\x89PNG\r\n\x1a\n"
_NUMBER = re.compile(rf"({UNDEFINED}|[+-]?[\d.]+(e[+-]\d+)?( \[.*\]| ± .*)?)?")
_LONG, _LONG_WORD = 24, 16  # characters from which a cell, or a word of a head, may break
_WIDE_FIGURE, _WIDE_TABLE, _WIDE_FACT = 750, 8, 24  # pixels, columns, characters
_ONE_PAGE = 20  # greatest number of rows of a table that is printed without a page break


@dataclass(frozen=True)
class Table:
    """A table of text.

    Attributes:
        caption: Caption.
        rows: Formatted cells; the first column is the head of each row.
        note: Text below the table.
    """

    caption: str
    rows: pd.DataFrame
    note: str = ""


@dataclass(frozen=True)
class Figure:
    """A figure.

    Attributes:
        caption: Caption.
        alt: Alternative text for screen readers: the caption and the figure's main numbers.
        png: Content of the PNG file.

    Raises:
        ValueError: If it is none.
    """

    caption: str
    alt: str
    png: bytes

    def __post_init__(self) -> None:
        if not is_png(self.png):
            raise ValueError(f"{self.caption}: no PNG file")

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in pixels, from the file's header."""
        width, height = struct.unpack(">II", self.png[16:24])
        return width, height


@dataclass(frozen=True)
class Section:
    """A part of the page: warnings, paragraphs, tables, figures and subsections, in this order."""

    title: str
    warnings: tuple[str, ...] = ()
    paragraphs: tuple[str, ...] = ()
    tables: tuple[Table, ...] = ()
    figures: tuple[Figure, ...] = ()
    sections: tuple["Section", ...] = ()

    @property
    def is_empty(self) -> bool:
        """Whether the section has no content."""
        parts = (self.warnings, self.paragraphs, self.tables, self.figures)
        return not any(parts) and all(section.is_empty for section in self.sections)


@dataclass(frozen=True)
class Report:
    """A whole page.

    Attributes:
        title: Main heading.
        subtitle: Text below the heading.
        facts: Facts that identify the run, by name.
        warnings: Warnings at the top of the page.
        sections: Sections in order.
        answer: What the run shows, in sentences above the facts; the first is the most important.
    """

    title: str
    subtitle: str = ""
    facts: Mapping[str, str] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    sections: tuple[Section, ...] = ()
    answer: tuple[str, ...] = ()


def is_png(content: bytes) -> bool:
    """Whether a file's content has the signature of a PNG file."""
    return content.startswith(_PNG) and len(content) > 24


def render(report: Report) -> str:
    """Render a report as HTML."""
    folder = Path(__file__).parent
    environment = Environment(
        loader=FileSystemLoader(folder),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_cleaned,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    pictures = [figure.png for section in report.sections for figure in _figures(section)]
    uris = {
        picture: Markup(f"data:{kind};base64,") + base64.b64encode(content).decode()
        for picture, (kind, content) in zip(pictures, encoded(pictures), strict=True)
    }
    environment.filters |= {"data_uri": uris.__getitem__, "kinds": _kinds}
    environment.tests |= {
        "wide_figure": lambda figure: figure.size[0] > _WIDE_FIGURE,
        "wide_table": lambda table: table.rows.shape[1] > _WIDE_TABLE,
        "short_table": lambda table: len(table.rows) <= _ONE_PAGE,
        "long_word": lambda text: any(len(word) > _LONG_WORD for word in text.split()),
        "wide_fact": lambda value: len(value) > _WIDE_FACT,
    }
    css, script = (
        (folder / name).read_text(encoding="utf-8") for name in ("report.css", "report.js")
    )
    policy = (
        f"default-src 'none'; img-src data:; style-src '{_digest(css)}'; "
        f"script-src '{_digest(script)}'; base-uri 'none'; form-action 'none'"
    )
    return environment.get_template("report.html.jinja").render(
        report=report, css=Markup(css), script=Markup(script), policy=Markup(policy)
    )


def _digest(text: str) -> str:
    """Hash by which a content security policy allows an inline style or script."""
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _cleaned(value: Any) -> Any:
    return clean(value) if type(value) is str else value  # Markup comes from this module only


def _figures(section: Section) -> Iterator[Figure]:
    yield from section.figures
    for inner in section.sections:
        yield from _figures(inner)


def _kinds(rows: pd.DataFrame) -> list[str]:
    """CSS class of each column's cells: `number`, `long` or `text`."""
    return [_kind(rows.iloc[:, column].tolist()) for column in range(rows.shape[1])]


def _kind(cells: list[str]) -> str:
    if any(cells) and all(_NUMBER.fullmatch(cell) for cell in cells):
        return "number"
    return "long" if any(len(cell) > _LONG for cell in cells) else "text"

"""Published CSV lists of images, translated into the columns of a manifest.

A dialect is an entry of `DIALECTS`; adding one is adding an entry.
"""

import csv
import posixpath
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import pandas as pd
import pyarrow as pa
from pyarrow import csv as arrow_csv

from synthdetect.datasets.labels import LABELS, REAL, SYNTHETIC, label_of
from synthdetect.system.errors import UserError

COLUMNS = ("path", "label", "split", "generator", "category", "source_id")
SPLITS = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}


class Dialect(NamedTuple):
    """How one published list names its columns.

    Attributes:
        name: the data set or tool the list belongs to.
        columns: the list's own name of each manifest column; a list that lacks one of them is in
            another dialect. Where label and generator have the same one, it holds "real" or a
            generator's name.
        marks: further columns that tell this list from the others.
    """

    name: str
    columns: dict[str, str]
    marks: tuple[str, ...] = ()

    @property
    def needs(self) -> list[str]:
        """The list's own columns, each once."""
        return list(dict.fromkeys((*self.columns.values(), *self.marks)))


DIALECTS = (
    Dialect("SPAI", {"path": "image", "label": "class", "split": "split"}),
    Dialect(
        "QuAD AncesTree",
        {"path": "filename", "label": "label", "generator": "type", "source_id": "src"},
        marks=("parent", "level"),
    ),
    Dialect(
        "QuAD ReWIND",
        {"path": "filename", "label": "label", "source_id": "src"},
        marks=("src_dataset",),
    ),
    Dialect("ITW-SM", {"path": "file_name", "label": "label"}, marks=("target", "platform")),
    Dialect("OpenFake", {"path": "file_name", "label": "label", "generator": "model"}),
    Dialect("ClipDet, SynthWildX", {"path": "filename", "label": "typ", "generator": "typ"}),
    Dialect(
        "UnbiasedGenImage",
        {"path": "path", "label": "generator", "generator": "generator", "split": "mode"},
        marks=("compression_rate",),
    ),
    Dialect("B-Free", {"path": "filename", "label": "label"}),
)
"""Tried in this order: a list with more columns comes before one with fewer."""


def import_csv(path: Path) -> pd.DataFrame:
    """Read a foreign CSV, in one of `DIALECTS`.

    Paths get forward slashes and are, like the list's own, relative to the CSV's folder. Columns
    that are not translated are kept, as text.

    Returns:
        A table with `COLUMNS` first, sorted by path: `label` is 0 (real) or 1 (synthetic), the
        others are text, empty where unknown; `generator` is empty for real images.

    Raises:
        UserError: the file cannot be read, is not UTF-8, is in no known dialect, has an unknown
            label, or lists nothing, an image without a path or the same image twice.
    """
    given = read_columns(path)
    dialect = next((d for d in DIALECTS if set(d.needs) <= set(given)), None)
    if dialect is None:
        raise UserError(
            f"{path}: unknown columns: {_listed(given)}. Name them as in a manifest (path,label "
            f"and, where known, {','.join(COLUMNS[2:])}) or as in one of these lists: "
            + "; ".join(f"{d.name} ({','.join(d.needs)})" for d in DIALECTS)
        )
    for name, own in dialect.columns.items():
        if name != own and name in given:
            raise UserError(
                f"{path}: both {own!r} and {name!r} give the {name}. Remove one column."
            )
    count = len(next(iter(given.values())))
    if not count:
        raise UserError(f"{path}: lists no images.")

    def column(name: str) -> list[str]:
        return given.get(dialect.columns.get(name, name), [""] * count)

    paths = _clean_paths(column("path"), path)
    names_generator = dialect.columns["label"] == dialect.columns.get("generator")
    label_names = column("label")
    labels = _labels(label_names, names_generator, where=str(path))
    generators = [
        # "fake" instead of a generator's name says only that it is unknown
        "" if label == REAL or (names_generator and _is_label(generator)) else generator
        for label, generator in zip(labels, column("generator"), strict=True)
    ]
    further = {
        name: values
        for name, values in given.items()
        if name not in COLUMNS and name not in dialect.columns.values()
    }
    table = pd.DataFrame(
        {
            "path": paths,
            "label": labels,
            "split": [split_of(split) for split in column("split")],
            "generator": generators,
            "category": column("category"),
            "source_id": column("source_id"),
            **further,
        }
    )
    return table.sort_values("path", ignore_index=True)


def split_of(name: str) -> str:
    """The split that a name stands for, in whatever case; a name of no split in `SPLITS` stays."""
    return SPLITS.get(name.strip().lower(), name)


def read_table(path: Path) -> pd.DataFrame:
    """Read a CSV as text.

    Raises:
        UserError: it cannot be read, is empty or not UTF-8, repeats a column, or has a row of
            another length than its header.
    """
    # Arrow reads a million lines in a second. What has quotes, over which readers differ, or what
    # it stumbles over, is left to the slow way, which says the line.
    convert = arrow_csv.ConvertOptions(strings_can_be_null=False)
    try:
        data = path.read_bytes()
        names = arrow_csv.open_csv(pa.py_buffer(data)).schema.names
        convert.column_types = dict.fromkeys(names, pa.string())
        found = arrow_csv.read_csv(pa.py_buffer(data), convert_options=convert)
    except (OSError, pa.ArrowInvalid):
        return pd.DataFrame(read_columns(path), dtype=str)
    names = [name.strip() for name in names]
    if b'"' in data or len(set(names)) < len(names) or not len(found):
        return pd.DataFrame(read_columns(path), dtype=str)
    return found.rename_columns(names).to_pandas()


def read_columns(path: Path) -> dict[str, list[str]]:
    """The same, column by column, and with the line at fault in its errors."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, strict=True)
            header = [name.strip() for name in next(reader, [])]
            rows = []
            for row in filter(None, reader):  # blank lines give empty rows
                if len(row) != len(header):
                    raise UserError(
                        f"{path}: line {reader.line_num} has {len(row)} fields, the header "
                        f"{len(header)}. Quote fields that hold commas."
                    )
                rows.append(row)
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: is not UTF-8 text. Save it as UTF-8.") from error
    except (OSError, csv.Error) as error:
        raise UserError(f"{path}: cannot be read as CSV: {error}") from error
    if not header:
        raise UserError(f"{path}: is empty; the first line must name the columns.")
    if len(set(header)) < len(header):
        raise UserError(f"{path}: a column is there twice: {_listed(header)}. Rename one.")
    return {name: [row[i] for row in rows] for i, name in enumerate(header)}


def _listed(names: Iterable[str]) -> str:
    """Some names as one reads them: a header that is none may be megabytes of anything."""
    shown = [name if len(name) <= 60 else f"{name[:60]}..." for name in names]
    return ", ".join(shown[:30] + ["..."] * (len(shown) > 30))


def _clean_paths(paths: list[str], where: Path) -> list[str]:
    cleaned = []
    seen = set()
    for number, path in enumerate(paths, 1):
        if not path.strip():
            raise UserError(f"{where}: image {number} of the list has no path.")
        path = posixpath.normpath(path.strip().replace("\\", "/"))
        if path in seen:
            raise UserError(f"{where}: {path!r} is listed twice; keep one row.")
        seen.add(path)
        cleaned.append(path)
    return cleaned


def _labels(names: list[str], names_generator: bool, *, where: str) -> list[int]:
    numbers = {
        name: SYNTHETIC
        if names_generator and name.strip() and not _is_label(name)
        else label_of(name, where=where)
        for name in set(names)
    }
    return [numbers[name] for name in names]


def _is_label(name: str) -> bool:
    return name.strip().lower() in LABELS

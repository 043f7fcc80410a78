"""Published CSV lists of images, translated into the columns of a manifest.

To add a dialect, add an entry to `DIALECTS`.
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
from synthdetect.datasets.schema import COLUMNS, split_of
from synthdetect.system.errors import UserError


class Dialect(NamedTuple):
    """The column names of one published list.

    Attributes:
        name: The data set or tool that the list belongs to.
        columns: The list's own name of each manifest column that it has. If label and generator
            have the same one, that column holds "real" or the name of a generator.
        marks: Further columns that tell this list from the others.
    """

    name: str
    columns: dict[str, str]
    marks: tuple[str, ...] = ()

    @property
    def needs(self) -> list[str]:
        """Columns, each once, without which a list is not in this dialect."""
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
"""The known dialects. The first one whose columns a list has is used, so larger ones come first."""


def import_csv(path: Path) -> pd.DataFrame:
    """Read a CSV list of images in one of `DIALECTS`.

    Paths get forward slashes; relative ones start from the folder of the CSV. Columns that are not
    translated are kept as text.

    Returns:
        A table sorted by path that begins with `COLUMNS`. `label` is 0 (real) or 1 (synthetic);
        the other columns are text, empty where unknown. `generator` is empty for real images.

    Raises:
        UserError: If the file cannot be read, is not UTF-8, is in no known dialect, has an unknown
            label, or lists no images, an image without a path or the same image twice.
    """
    given = read_columns(path)
    dialect = next((d for d in DIALECTS if set(d.needs) <= set(given)), None)
    if dialect is None:
        raise UserError(
            f"{path}: unknown columns: {_shortened(given)}. Name them as in a manifest (path,label "
            f"and, where known, {','.join(COLUMNS[2:])}) or as in one of these lists: "
            + "; ".join(f"{d.name} ({','.join(d.needs)})" for d in DIALECTS)
        )
    for name, own in dialect.columns.items():
        if name != own and name in given:
            raise UserError(
                f"{path}: both columns {own!r} and {name!r} give the {name}. Remove one column."
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
        # "fake" in place of a generator's name means that the generator is unknown.
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


def read_table(path: Path) -> pd.DataFrame:
    """Read a CSV as a table of text.

    Raises:
        UserError: If the file cannot be read, is empty or not UTF-8, repeats a column, or has a row
            of another length than its header.
    """
    # Arrow reads a million lines in a second. Files with quotes, which readers treat differently,
    # and files with errors go to the slower csv module, which gives the line of an error.
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
    """Read a CSV as a list of text for each column.

    Raises:
        UserError: As `read_table`, with the number of the line.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, strict=True)
            header = [name.strip() for name in next(reader, [])]
            rows = []
            for row in filter(None, reader):  # blank lines give empty rows
                if len(row) != len(header):
                    raise UserError(
                        f"{path}: line {reader.line_num} has {len(row)} fields, but the header has "
                        f"{len(header)}. Quote fields that hold commas."
                    )
                rows.append(row)
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: is not UTF-8 text. Save it as UTF-8.") from error
    except (OSError, csv.Error) as error:
        raise UserError(f"{path}: cannot be read as CSV: {error}") from error
    if not header:
        raise UserError(f"{path}: is empty. The first line must name the columns.")
    if len(set(header)) < len(header):
        raise UserError(f"{path}: has a column twice: {_shortened(header)}. Rename one.")
    return {name: [row[i] for row in rows] for i, name in enumerate(header)}


def _shortened(names: Iterable[str]) -> str:
    """Join names for a message: the first line of an arbitrary file may be megabytes long."""
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
            raise UserError(f"{where}: {path!r} is listed twice. Keep one row.")
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

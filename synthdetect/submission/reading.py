"""Reading of run files, from a CSV or from the CSV in a ZIP archive.

Sizes are limited, so that hostile content cannot exhaust the memory.
"""

import codecs
import csv
import io
import itertools
import os
import re
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, BinaryIO, NamedTuple

from synthdetect.datasets.archives import BadMember, open_member
from synthdetect.datasets.tars import DAMAGE
from synthdetect.submission.faults import EXAMPLES, Faults, quoted
from synthdetect.submission.format import COLUMNS, Edition
from synthdetect.system.errors import UserError

MAX_BYTES = 2**30  # of a file, and of a ZIP member once unpacked
MAX_LINE_BYTES = 100_000
MAX_LINES = 2_000_000  # the test set has 10,000 images


class Unreadable(Exception):
    """A run file that cannot be read to its end."""

    def __init__(self, reason: str, code: str = "unreadable") -> None:
        super().__init__(reason)
        self.code = code


class Row(NamedTuple):
    """A row as it is written.

    Attributes:
        line: Its line in the CSV, from 1.
        image_id: Its image id.
        values: prob, label and threshold; None if the row has another number of fields than the
            header.
    """

    line: int
    image_id: str
    values: tuple[str, str, str] | None


def read_rows(path: Path, edition: Edition | None, faults: Faults) -> Iterator[Row]:
    """Yield the rows of a run file, and report faults of the ZIP, the header and the rows' form.

    Raises:
        Unreadable: If the file cannot be read to its end.
        UserError: If the path is not a readable file.
    """
    with _open_csv(path, edition, faults) as stream:
        # pandas would convert the fields and so hide how they are written.
        lines = csv.reader(_text_lines(stream, faults), strict=True)
        try:
            header = next(lines, [])
            columns = _find_columns(header, faults)
            for fields in lines:
                line = lines.line_num
                if len(fields) < 2 and not "".join(fields).strip():
                    faults.add("blank-lines", f"line {line}")
                    continue
                image_id = fields[columns[0]] if columns[0] < len(fields) else ""
                if len(fields) == len(header):
                    prob, label, threshold = (fields[i] for i in columns[1:])
                    yield Row(line, image_id, (prob, label, threshold))
                else:
                    detail = f"{len(fields)} for {len(header)}"
                    faults.add_row("field-count", line, image_id, detail)
                    yield Row(line, image_id, None)
        except csv.Error as error:
            raise Unreadable(f"line {lines.line_num} is not valid CSV: {error}") from error


@contextmanager
def _open_csv(path: Path, edition: Edition | None, faults: Faults) -> Iterator[IO[bytes]]:
    """Open the CSV. The suffix decides whether to unzip, else the edition, else the content."""
    if not path.is_file():
        raise UserError(f"{path}: is not a file. Give the run file to check.")
    try:
        file = path.open("rb")
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}).") from error
    with file:
        _check_size(os.fstat(file.fileno()).st_size)
        is_zip = file.read(4) == b"PK\x03\x04"
        file.seek(0)
        suffix = path.suffix.lower()
        if suffix not in (".zip", ".csv"):
            suffix = edition.suffix if edition else ".zip" if is_zip else ".csv"
        if suffix == ".zip":
            with _unzip_csv(file, f"{path.stem}.csv", faults) as stream:
                yield stream
        elif is_zip:
            raise Unreadable("it is a ZIP archive; submit the CSV itself, or name the file .zip")
        else:
            yield file


@contextmanager
def _unzip_csv(file: BinaryIO, expected_name: str, faults: Faults) -> Iterator[IO[bytes]]:
    try:
        archive = zipfile.ZipFile(file)
    except (*DAMAGE, OSError) as error:
        raise Unreadable(f"it is not a ZIP archive ({error}); put the CSV in one") from error
    with archive:
        member = _only_csv(archive, faults)
        if member.filename != expected_name:
            faults.add("inner-name", f"{quoted(member.filename)}, not {quoted(expected_name)}")
        try:
            stream = open_member(archive, member)
        except (BadMember, OSError) as error:
            raise Unreadable(f"the CSV in the ZIP is {error}; zip it again") from error
        _check_size(member.file_size)
        with io.BufferedReader(stream) as buffered:  # type: ignore[type-var]  # it has readinto
            yield buffered


def _only_csv(archive: zipfile.ZipFile, faults: Faults) -> zipfile.ZipInfo:
    """Return the only CSV. Other files in the archive are reported and skipped."""
    # Not is_dir(), which fails on an empty name.
    members = [member for member in archive.infolist() if not member.filename.endswith("/")]
    tables = [member for member in members if _is_csv(member.filename)]
    listed = ", ".join(quoted(member.filename) for member in members[:EXAMPLES])
    found = f"{len(members):,} file(s): {listed}" if members else "it is empty"
    if len(tables) != 1:
        raise Unreadable(found, "zip-members")
    if len(members) > 1:
        faults.add("zip-members", found)
    return tables[0]


def _is_csv(member: str) -> bool:
    *folders, name = re.split(r"[/\\]", member)
    added_by_macos = name.startswith("._") or "__MACOSX" in folders
    return name.lower().endswith(".csv") and not added_by_macos


def _check_size(size: int) -> None:
    if size > MAX_BYTES:
        raise Unreadable(f"{size:,} bytes are more than the limit of {MAX_BYTES:,}")


def _text_lines(stream: IO[bytes], faults: Faults) -> Iterator[str]:
    for number in itertools.count(1):
        try:
            raw = stream.readline(MAX_LINE_BYTES + 1)
        except (*DAMAGE, OSError) as error:
            raise Unreadable(f"it is damaged at line {number}: {error}") from error
        if not raw:
            return
        if number > MAX_LINES:
            raise Unreadable(f"there are more than {MAX_LINES:,} lines")
        if len(raw) > MAX_LINE_BYTES:
            raise Unreadable(f"line {number} is longer than {MAX_LINE_BYTES:,} bytes")
        if number == 1 and raw.startswith(codecs.BOM_UTF8):
            faults.add("bom")
            raw = raw.removeprefix(codecs.BOM_UTF8)
        try:
            yield raw.decode("utf-8")
        except UnicodeDecodeError as error:
            raise Unreadable(
                f"line {number}, byte {error.start + 1} is not UTF-8; save the CSV as UTF-8"
            ) from error


def _find_columns(header: list[str], faults: Faults) -> list[int]:
    """Return the index of each of `COLUMNS` in the header, in any order and case."""
    names = [name.strip().lower() for name in header]
    shown = quoted(",".join(header))
    if not set(COLUMNS) <= set(names):
        raise Unreadable(f"{shown}; no row was checked", "header")
    if tuple(header) != COLUMNS:
        faults.add("header", shown)
    return [names.index(column) for column in COLUMNS]

"""Write and check run files of the MediaEval synthetic-images task (Task A).

A run is a CSV with the header ``image_id,prob,label,threshold`` and one row per test image:

* ``image_id``: file name of the image, with its extension and without folders;
* ``prob``: probability that the image is synthetic, 0.0 to 1.0;
* ``label``: 1 (synthetic) when ``prob >= threshold``, otherwise 0 (real);
* ``threshold``: one number for the whole run, repeated on every row.

Sources: MediaEval 2025 SynthIM README (mever-team/mediaeval2025-sid) and MediaEval 2026 SynthIM
README (mever-team/mediaeval2026-sid). The 2025 edition wants the CSV alone in a ZIP, the 2026
edition the CSV itself. The README gives no rule for the boundary; ``>=`` is what entries use.
"""

import csv
import io
import itertools
import math
import os
import re
import struct
import tarfile
import tempfile
import zipfile
import zlib
from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from lzma import LZMAError
from pathlib import Path
from typing import BinaryIO, Literal

import numpy as np
import pandas as pd

from synthdetect.datasets.layouts import IMAGE_SUFFIXES, is_image
from synthdetect.system.errors import UserError

Severity = Literal["error", "warning"]


@dataclass(frozen=True)
class Edition:
    """What one year's edition asks for: its name, the suffix of a run file, and the source."""

    name: str
    suffix: Literal[".zip", ".csv"]
    source: str

    def file_name(self, team: str, run: str) -> str:
        return f"{team}_{run}{self.suffix}"


EDITIONS: dict[str, Edition] = {
    "2025": Edition("2025", ".zip", "MediaEval 2025 SynthIM README (mever-team/mediaeval2025-sid)"),
    "2026": Edition("2026", ".csv", "MediaEval 2026 SynthIM README (mever-team/mediaeval2026-sid)"),
}
RUNS = ("constrained", "open")
COLUMNS = ("image_id", "prob", "label", "threshold")

# Letters, digits and inner hyphens: the first "_" then always ends the team's name.
TEAM_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9-]{0,63}")

MAX_BYTES = 2**30  # of a file, or of a ZIP member once unpacked
MAX_LINE_BYTES = 100_000
MAX_LINES = 2_000_000  # the test set has 10,000 images
EXAMPLES = 5
PLAUSIBLE_SHARE = (0.1, 0.9)  # of rows labelled synthetic; the official sets are half and half
SAME_PROB = 1e-6  # two runs that agree this closely on every image are one run, saved twice

_RUN_FILE = re.compile(rf"(?P<team>.+)_(?:{'|'.join(RUNS)})\.(?:zip|csv)")
_TAR_SUFFIXES = (".tar", ".tar.gz", ".tgz")
# Each alternative can match in one way only, so that a long hostile field costs linear time.
_NUMBER = re.compile(r"[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_SLASH = re.compile(r"[/\\]")
# What zipfile and tarfile raise on damaged archives.
_ARCHIVE_ERRORS = (
    zipfile.BadZipFile,
    tarfile.TarError,
    zlib.error,
    LZMAError,
    struct.error,
    EOFError,
    OSError,
    ValueError,
    IndexError,
    OverflowError,
    RuntimeError,
)


@dataclass(frozen=True)
class Finding:
    """One fault of a run file. An error makes it unfit for submission, a warning asks for a look.

    ``code`` is a key of ``FAULTS``; ``message`` gives the count, up to five examples, each with
    its line in the CSV where it has one, and what to do.
    """

    severity: Severity
    code: str
    message: str


@dataclass(frozen=True)
class Fault:
    """A kind of fault: how bad it is, what it is, and what to do about it."""

    severity: Severity
    what: str
    remedy: str


# Every fault that is looked for, in the order of the report: from the container to the content.
FAULTS: dict[str, Fault] = {
    "edition-mismatch": Fault(
        "error", "This is not the kind of file the edition asks for", "Write the run again for it"
    ),
    "file-name": Fault(
        "error",
        "The file is not named <team>_constrained or <team>_open with .zip (2025) or .csv (2026)",
        "Rename it, in exactly this spelling",
    ),
    "team-name": Fault(
        "warning",
        "The team's name holds more than letters, digits and hyphens",
        "Use a plain name, so that it cannot be mistaken for another part of the file name",
    ),
    "too-large": Fault("error", "The file is too large to be a run", "Write the run again"),
    "not-zip": Fault(
        "error", "The file is not a ZIP archive", "Put the CSV, alone, in a real ZIP archive"
    ),
    "zip-empty": Fault("error", "The ZIP holds no file", "Put the CSV in it"),
    "zip-several": Fault("error", "The ZIP holds more than one file", "Leave only the run's CSV"),
    "member-not-csv": Fault(
        "error", "The file in the ZIP is not named .csv", "Put the run's CSV in the ZIP"
    ),
    "zip-encrypted": Fault("error", "The CSV in the ZIP is encrypted", "Zip it without a password"),
    "zip-method": Fault(
        "error", "The ZIP uses an unusual compression", "Zip with the usual one (deflate)"
    ),
    "inner-name": Fault(
        "warning", "The CSV in the ZIP is not named like the ZIP", "Give both the same name"
    ),
    "not-csv": Fault(
        "error", "The .csv file is a ZIP archive", "Submit the CSV itself, or name the file .zip"
    ),
    "damaged": Fault("error", "The file is damaged", "Write it again"),
    "not-utf8": Fault("error", "The text is not UTF-8", "Save the CSV as UTF-8"),
    "bom": Fault(
        "error",
        "The text begins with a byte order mark, which becomes part of the first column's name",
        "Save the CSV as UTF-8 without BOM",
    ),
    "line-too-long": Fault(
        "error",
        f"A line is longer than {MAX_LINE_BYTES:,} bytes; the rest was not checked",
        "End every row with a line break",
    ),
    "too-many-lines": Fault(
        "error",
        f"There are more than {MAX_LINES:,} lines; the rest was not checked",
        "Give one row per test image",
    ),
    "csv-syntax": Fault(
        "error",
        "The line is not CSV; the rest was not checked",
        "Check the quotes and line breaks there",
    ),
    "no-rows": Fault("error", "There are no predictions", "Give one row per test image"),
    "separator": Fault("error", "The columns are not separated by commas", "Use commas"),
    "header-missing": Fault(
        "error",
        "The first line is a row, not the header",
        f"Begin the file with {','.join(COLUMNS)}",
    ),
    "header": Fault(
        "error", "The header is wrong", f"It must be exactly {','.join(COLUMNS)}, in this spelling"
    ),
    "column-order": Fault(
        "error", "The columns are in the wrong order", f"The order is {','.join(COLUMNS)}"
    ),
    "extra-columns": Fault(
        "error", "There are columns too many", f"Leave only {','.join(COLUMNS)}"
    ),
    "blank-lines": Fault("error", "There are blank lines", "Remove them"),
    "field-count": Fault(
        "error",
        "The number of fields is not that of the header",
        "Give every row each field once, with a point, not a comma, for decimals",
    ),
    "id-empty": Fault("error", "image_id is empty", "Write the image's file name"),
    "id-characters": Fault(
        "error",
        "image_id holds control characters or outer spaces",
        "Write the image's file name exactly",
    ),
    "id-folder": Fault(
        "error", "image_id holds a folder", "Write the file name without its folder"
    ),
    "id-no-extension": Fault(
        "error", "image_id lacks an image's extension", "Write the whole file name, like name.jpg"
    ),
    "duplicate-ids": Fault("error", "Images are predicted twice", "Keep one row per image"),
    "missing-ids": Fault(
        "error", "Images of the test set have no prediction", "Give one row per test image"
    ),
    "extra-ids": Fault(
        "error",
        "Images are not in the test set",
        "Remove these rows, or write the ids as the files are named",
    ),
    "prob-empty": Fault("error", "prob is empty", "Give every image a probability"),
    "prob-not-number": Fault("error", "prob is not a number", "Write it like 0.876"),
    "prob-nan": Fault("error", "prob is nan", "Give every image a probability"),
    "prob-infinite": Fault("error", "prob is infinite", "Write a probability, not a logit"),
    "prob-range": Fault("error", "prob is outside 0 to 1", "Write a probability, not a logit"),
    "label-value": Fault(
        "error", "label is neither 0 nor 1", "Write 0 for real or 1 for synthetic, nothing else"
    ),
    "label-contradicts": Fault(
        "error",
        "label contradicts prob and threshold",
        "Write 1 exactly when prob >= threshold, compared as they stand in the file",
    ),
    "threshold-not-number": Fault("error", "threshold is not a number", "Write it like 0.5"),
    "threshold-range": Fault("error", "threshold is outside 0 to 1", "Write it on prob's scale"),
    "threshold-several": Fault(
        "error", "There is more than one threshold", "Repeat one threshold on every row"
    ),
    "threshold-noise": Fault(
        "warning",
        "threshold carries the rounding noise of floating point",
        "Round it where it is chosen, and make the labels anew",
    ),
    "positive-share": Fault(
        "warning",
        "The share of images labelled synthetic is implausible",
        "Check the threshold, and that prob is for synthetic, not real",
    ),
    "constant-prob": Fault("warning", "prob is the same for all images", "Check the model"),
    "other-unreadable": Fault(
        "error", "The other run could not be compared", "Check that file and mend it first"
    ),
    "same-as-other": Fault(
        "error",
        "The other run holds the same predictions",
        "The constrained and the open run must come from different models",
    ),
    "only-threshold-differs": Fault(
        "error",
        "The other run holds the same probabilities; only the threshold differs",
        "The constrained and the open run must come from different models",
    ),
}


# ------------------------------------------------------------------------------------- writing


def write_submission(
    predictions: pd.DataFrame,
    directory: Path,
    *,
    team: str,
    run: str,
    edition: str,
    threshold: float,
) -> Path:
    """Write a run file, check it, and return its path in ``directory`` (made if need be).

    ``predictions`` has the columns ``image_id`` (file name with extension, no folder) and ``prob``
    (probability that the image is synthetic); other columns are left out and the order is kept.
    The format is that of the MediaEval 2025 SynthIM README / 2026: ``<team>_<run>.zip`` with
    ``<team>_<run>.csv`` in it (2025), or ``<team>_<run>.csv`` (2026).

    Numbers are written so that they read back as exactly the same float64, and labels follow from
    the written numbers. The same input gives the same bytes. The file appears whole or not at
    all, and only if ``check_submission`` finds no error in it; warnings do not stop it.

    ``team`` must match ``TEAM_NAME``: letters, digits and hyphens, at most 64.

    Raises UserError, naming the option or the row: bad team, unknown run or edition, threshold
    outside 0 to 1, missing columns, any id or prob that the format does not allow, a directory
    that cannot be written to.
    """
    form = _edition(edition)
    threshold = float(threshold)
    _check_options(team, run, threshold)
    ids = _ids_of(predictions)
    text = _csv_text(ids, _probs_of(predictions), threshold)

    name = form.file_name(team, run)
    target = directory / name
    try:
        directory.mkdir(parents=True, exist_ok=True)
        # Written and checked under its final name in a folder of its own, then moved in one step.
        with tempfile.TemporaryDirectory(dir=directory, prefix=".submission-") as scratch:
            draft = Path(scratch) / name
            draft.write_bytes(text if form.suffix == ".csv" else _zipped(text, f"{team}_{run}.csv"))
            _raise_errors(check_submission(draft, image_ids=ids, edition=edition))
            os.replace(draft, target)
    except OSError as error:
        raise UserError(f"{target}: cannot be written ({error.strerror or error})") from error
    return target


def _edition(name: str) -> Edition:
    if name not in EDITIONS:
        raise UserError(f"edition: unknown {name!r}; use one of {', '.join(EDITIONS)}")
    return EDITIONS[name]


def _check_options(team: str, run: str, threshold: float) -> None:
    if not TEAM_NAME.fullmatch(team):
        raise UserError(f"team: {team!r} must be 1 to 64 letters, digits and hyphens")
    if run not in RUNS:
        raise UserError(f"run: unknown {run!r}; use one of {', '.join(RUNS)}")
    if not 0 <= threshold <= 1:
        raise UserError(f"threshold: {threshold!r} must be a number from 0 to 1")


def _ids_of(predictions: pd.DataFrame) -> list[str]:
    for column in ("image_id", "prob"):
        if list(predictions.columns).count(column) != 1:
            raise UserError(f"predictions: must have one column named {column}")
    ids = list(predictions["image_id"])
    rules = _TestSet(None)
    for row, image_id in enumerate(ids):
        if not isinstance(image_id, str):
            raise UserError(f"predictions: row {row}: image_id {image_id!r} is not text")
        for code, _ in rules.match(image_id)[1]:
            fault = FAULTS[code]
            raise UserError(
                f"predictions: row {row}: {fault.what}: {_quoted(image_id)}. {fault.remedy}."
            )
    return ids


def _probs_of(predictions: pd.DataFrame) -> list[float]:
    column = predictions["prob"]
    if not pd.api.types.is_numeric_dtype(column.dtype):
        raise UserError(f"predictions: prob must hold numbers, not {column.dtype}")
    # As float64 before anything is compared: in float32, 0.65 >= 0.65 is decided otherwise.
    return list(map(float, column.to_numpy(dtype=np.float64, na_value=np.nan)))


def _csv_text(ids: list[str], probs: list[float], threshold: float) -> bytes:
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(COLUMNS)
    labels = (int(prob >= threshold) for prob in probs)
    # repr is the shortest text that reads back as the same float.
    writer.writerows(
        zip(ids, map(repr, probs), labels, itertools.repeat(repr(threshold)), strict=False)
    )
    try:
        return buffer.getvalue().encode("utf-8")
    except UnicodeEncodeError as error:
        raise UserError(
            f"predictions: an image_id cannot be written as UTF-8 ({error.reason})"
        ) from error


def _zipped(text: bytes, name: str) -> bytes:
    # Clock, platform and permissions would otherwise get into the bytes.
    member = zipfile.ZipInfo(name, date_time=(1980, 1, 1, 0, 0, 0))
    member.create_system = 3
    member.external_attr = 0o644 << 16
    member.compress_type = zipfile.ZIP_DEFLATED
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr(member, text, compresslevel=6)
    return buffer.getvalue()


def _raise_errors(findings: list[Finding]) -> None:
    errors = [finding.message for finding in findings if finding.severity == "error"]
    if errors:
        raise UserError("predictions: " + " ".join(errors))


# ------------------------------------------------------------------------------------ checking


def check_submission(
    path: Path,
    *,
    image_ids: Collection[str] | None = None,
    edition: str | None = None,
    other: Path | None = None,
) -> list[Finding]:
    """Everything that is wrong with a run file, whoever wrote it; an empty list when it is right.

    The format is that of the MediaEval 2025 SynthIM README / 2026 (see the module). ``FAULTS``
    lists all codes. Any content gives findings, never an exception.

    image_ids: the file names of the test set (``image_ids_of``). Without them, missing and foreign
        ids cannot be found, and an id must end in one of ``IMAGE_SUFFIXES``.
    edition: a key of ``EDITIONS``; without it, the file's suffix decides.
    other: the team's other run. The two must differ in their probabilities, not only in their
        thresholds; compared on the images both have.

    Raises UserError for an unknown edition, and for a path that is not a readable file.
    """
    form = None if edition is None else _edition(edition)
    test_set = _TestSet(image_ids)
    report = _Report()
    _check_name(path, form, report)
    table = _read(path, form, test_set, report)
    # A file that was not read to its end has said why; what follows needs all the rows.
    if table is not None:
        _check_ids(table)
        _check_thresholds(table)
        _check_plausible(table)
        if other is not None:
            _check_other(table, other)
    return report.findings()


class _Report:
    """Faults met so far: of each, how often, and the first examples."""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()
        self._examples: dict[str, list[str]] = {}

    def add(self, code: str, example: str = "") -> None:
        self._counts[code] += 1
        examples = self._examples.setdefault(code, [])
        if example and len(examples) < EXAMPLES:
            examples.append(example)

    def add_row(self, code: str, line: int, image_id: str, detail: str = "") -> None:
        if self._counts[code] >= EXAMPLES:  # do not format what will not be shown
            self._counts[code] += 1
            return
        self.add(code, f"line {line} ({_quoted(image_id)}{': ' if detail else ''}{detail})")

    def findings(self) -> list[Finding]:
        return [
            Finding(fault.severity, code, self._message(code))
            for code, fault in FAULTS.items()
            if code in self._counts
        ]

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


class _Stop(Exception):
    """A fault after which the file cannot be read on."""

    def __init__(self, code: str, example: str = "") -> None:
        super().__init__(code)
        self.code = code
        self.example = example


class _TestSet:
    """The ids that a run must hold, when they are known, and which of them a written id means.

    A misspelt id that can be matched is reported as misspelt only, not also as one id missing
    and one too many.
    """

    def __init__(self, image_ids: Collection[str] | None) -> None:
        self.ids = None if image_ids is None else frozenset(image_ids)
        self._by_stem = {_stem(name): name for name in sorted(self.ids or ()) if _has_suffix(name)}

    def match(self, written: str) -> tuple[str, list[tuple[str, str]]]:
        """The id that is meant ("" for none), and the code and detail of each fault in it."""
        if self.ids is not None and written in self.ids:
            return written, []
        name = written.strip()
        if not name:
            return "", [("id-empty", "")]
        faults = []
        if name != written or _CONTROL.search(name):
            faults.append(("id-characters", ""))
        base = base_name(name)
        if base != name:
            faults.append(("id-folder", ""))
        if self.ids is None:
            if not _has_suffix(base):
                faults.append(("id-no-extension", ""))
        elif base not in self.ids and base in self._by_stem:
            base = self._by_stem[base]
            faults.append(("id-no-extension", f"is {_quoted(base)} in the test set"))
        return base, faults


@dataclass
class _Table:
    """Checks rows one by one, and keeps what the checks of the whole file need of them."""

    test_set: _TestSet
    report: _Report
    places: list[int]  # of COLUMNS in a row
    width: int  # of a row
    lines: dict[str, int] = field(default_factory=dict)  # first line of each id
    probs: dict[str, float] = field(default_factory=dict)  # the valid ones, by id
    labels: Counter[str] = field(default_factory=Counter)  # the valid ones
    thresholds: Counter[str] = field(default_factory=Counter)  # the valid ones, as written

    def check_row(self, fields: list[str], line: int) -> None:
        if len(fields) < 2 and not "".join(fields).strip():
            self.report.add("blank-lines", f"line {line}")
            return
        written = fields[self.places[0]] if self.places[0] < len(fields) else ""
        image_id = self._check_id(written, line)
        if len(fields) != self.width:
            self.report.add_row("field-count", line, written, f"{len(fields)} for {self.width}")
            return
        prob_text, label_text, threshold_text = (fields[place] for place in self.places[1:])
        prob = self._check_prob(prob_text, line, written)
        label = self._check_label(label_text, line, written)
        threshold = self._check_threshold(threshold_text, line, written)
        if prob is not None:
            self.probs[image_id] = prob
        if prob is None or label is None or threshold is None:
            return
        if label != ("1" if prob >= threshold else "0"):
            detail = f"label {label}, prob {prob!r}, threshold {threshold!r}"
            self.report.add_row("label-contradicts", line, written, detail)

    def _check_id(self, written: str, line: int) -> str:
        image_id, faults = self.test_set.match(written)
        for code, detail in faults:
            self.report.add_row(code, line, written, detail)
        first = self.lines.setdefault(image_id, line)
        if image_id and first != line:
            self.report.add_row("duplicate-ids", line, written, f"first on line {first}")
        return image_id

    def _check_prob(self, text: str, line: int, written: str) -> float | None:
        value = _number(text)
        if value is not None and 0 <= value <= 1:
            return value
        self.report.add_row(_kind_of_prob(text, value), line, written, _quoted(text))
        return None

    def _check_label(self, text: str, line: int, written: str) -> str | None:
        if text not in ("0", "1"):
            self.report.add_row("label-value", line, written, _quoted(text))
            return None
        self.labels[text] += 1
        return text

    def _check_threshold(self, text: str, line: int, written: str) -> float | None:
        value = _number(text)
        if value is not None and 0 <= value <= 1:
            self.thresholds[text] += 1
            return value
        code = "threshold-not-number" if value is None else "threshold-range"
        self.report.add_row(code, line, written, _quoted(text))
        return None


def _check_name(path: Path, form: Edition | None, report: _Report) -> None:
    if form is not None and path.suffix.lower() in {".zip", ".csv"} - {form.suffix}:
        asked = form.file_name("<team>", "<run>")
        report.add("edition-mismatch", f"{form.name} asks for {asked}, this is {path.suffix}")
    match = _RUN_FILE.fullmatch(path.name)
    if match is None:
        report.add("file-name", _quoted(path.name))
    elif not TEAM_NAME.fullmatch(match["team"]):
        report.add("team-name", _quoted(match["team"]))


def _read(path: Path, form: Edition | None, test_set: _TestSet, report: _Report) -> _Table | None:
    """The table in the file, its rows checked one by one; None if it cannot be read to its end."""
    try:
        with _opened(path, form, report) as stream:
            return _read_table(stream, test_set, report)
    except _Stop as stop:
        report.add(stop.code, stop.example)
        return None


@contextmanager
def _opened(path: Path, form: Edition | None, report: _Report) -> Iterator[BinaryIO]:
    """The CSV, in its archive or by itself. The suffix decides, then the edition, then a look."""
    if not path.is_file():
        raise UserError(f"{path}: is not a file; give the run file to check")
    try:
        file = path.open("rb")
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from error
    with file:
        _limit_size(os.fstat(file.fileno()).st_size)
        starts_as_zip = file.read(4) == b"PK\x03\x04"
        file.seek(0)
        suffix = path.suffix.lower()
        if suffix not in (".zip", ".csv"):
            suffix = form.suffix if form else ".zip" if starts_as_zip else ".csv"
        if suffix == ".zip":
            with _opened_member(file, f"{path.stem}.csv", report) as stream:
                yield stream
        elif starts_as_zip:
            raise _Stop("not-csv")
        else:
            yield file


@contextmanager
def _opened_member(file: BinaryIO, wanted: str, report: _Report) -> Iterator[BinaryIO]:
    try:
        archive = zipfile.ZipFile(file)
    except _ARCHIVE_ERRORS as error:
        raise _Stop("not-zip", str(error)) from error
    with archive:
        member = _only_csv(archive, report)
        if member.filename != wanted:
            report.add("inner-name", f"{_quoted(member.filename)}, not {_quoted(wanted)}")
        if member.flag_bits & 1:
            raise _Stop("zip-encrypted", _quoted(member.filename))
        # The other methods are not read everywhere, and LZMA may ask for gigabytes of memory.
        if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise _Stop("zip-method", f"number {member.compress_type}")
        _limit_size(member.file_size)  # zipfile never unpacks more than the size it declares
        try:
            stream = archive.open(member)
        except _ARCHIVE_ERRORS as error:
            raise _Stop("damaged", str(error)) from error
        with io.BufferedReader(stream) as buffered:  # type: ignore[type-var]  # it has readinto
            yield buffered


def _only_csv(archive: zipfile.ZipFile, report: _Report) -> zipfile.ZipInfo:
    """The one CSV; an archive that holds other files as well is reported, and read all the same."""
    # Not is_dir(), which fails on an empty name.
    members = [member for member in archive.infolist() if not member.filename.endswith("/")]
    if not members:
        raise _Stop("zip-empty")
    tables = [
        member
        for member in members
        if member.filename.lower().endswith(".csv") and not _is_apple_double(member.filename)
    ]
    if len(members) > 1:
        for member in members[:-1]:
            report.add("zip-several", _quoted(member.filename))
        last = _quoted(members[-1].filename)
        if len(tables) != 1:
            raise _Stop("zip-several", last)
        report.add("zip-several", last)
    elif not tables:
        raise _Stop("member-not-csv", _quoted(members[0].filename))
    return tables[0]


def _limit_size(size: int) -> None:
    if size > MAX_BYTES:
        raise _Stop("too-large", f"{size:,} bytes, more than {MAX_BYTES:,}")


def _text_lines(stream: BinaryIO, report: _Report) -> Iterator[str]:
    """The lines as text. Read with limits, so that hostile content cannot take all memory."""
    for number in itertools.count(1):
        try:
            raw = stream.readline(MAX_LINE_BYTES + 1)
        except _ARCHIVE_ERRORS as error:
            raise _Stop("damaged", f"at line {number}: {error}") from error
        if not raw:
            return
        if number > MAX_LINES:
            raise _Stop("too-many-lines")
        if len(raw) > MAX_LINE_BYTES:
            raise _Stop("line-too-long", f"line {number}")
        if number == 1 and raw.startswith(b"\xef\xbb\xbf"):
            report.add("bom")
            raw = raw[3:]
        try:
            yield raw.decode("utf-8")
        except UnicodeDecodeError as error:
            raise _Stop("not-utf8", f"line {number}, byte {error.start + 1}") from error


def _read_table(stream: BinaryIO, test_set: _TestSet, report: _Report) -> _Table:
    # Not pandas: its guesses at types would hide how the fields are written.
    rows = csv.reader(_text_lines(stream, report), strict=True)
    try:
        header = next(rows, None)
        if header is None:
            raise _Stop("no-rows", "the file is empty")
        table = _Table(test_set, report, _find_columns(header, report), len(header))
        for fields in rows:
            table.check_row(fields, rows.line_num)
    except csv.Error as error:
        raise _Stop("csv-syntax", f"line {rows.line_num}: {error}") from error
    if not table.lines:
        raise _Stop("no-rows")
    return table


def _find_columns(header: list[str], report: _Report) -> list[int]:
    """Where in a row the four columns are, if the header has all of them in some way."""
    if tuple(header) == COLUMNS:
        return list(range(len(COLUMNS)))
    names = [name.strip().lower() for name in header]
    if not set(COLUMNS) <= set(names):
        raise _Stop(_kind_of_header(header), f"{_quoted(','.join(header))}; no row was checked")
    places = [names.index(column) for column in COLUMNS]
    for place in range(len(names)):
        if place not in places:
            report.add("extra-columns", _quoted(header[place]))
    if places != sorted(places):
        report.add("column-order", _quoted(",".join(header)))
    if any(header[place] != column for place, column in zip(places, COLUMNS, strict=True)):
        report.add("header", _quoted(",".join(header)))
    return places


def _kind_of_header(header: list[str]) -> str:
    for mark in ";\t|":
        if {part.strip().lower() for part in ",".join(header).split(mark)} >= set(COLUMNS):
            return "separator"
    if len(header) == len(COLUMNS) and all(_number(text) is not None for text in header[1:]):
        return "header-missing"
    return "header"


def _kind_of_prob(text: str, value: float | None) -> str:
    if not text.strip():
        return "prob-empty"
    word = text.strip().lower().lstrip("+-")
    if word == "nan":
        return "prob-nan"
    if word in ("inf", "infinity") or (value is not None and math.isinf(value)):
        return "prob-infinite"
    return "prob-not-number" if value is None else "prob-range"


def _check_ids(table: _Table) -> None:
    if table.test_set.ids is None:
        return
    for image_id in sorted(table.test_set.ids - table.lines.keys()):
        table.report.add("missing-ids", _quoted(image_id))
    for image_id, line in table.lines.items():
        if image_id and image_id not in table.test_set.ids:
            table.report.add_row("extra-ids", line, image_id)


def _check_thresholds(table: _Table) -> None:
    if len(_values(table.thresholds)) > 1:
        rows = table.thresholds.total()
        for text, count in table.thresholds.most_common():
            table.report.add("threshold-several", f"{_quoted(text)} in {count:,} of {rows:,} rows")
    for text in table.thresholds:
        short = float(f"{float(text):.10g}")
        if _has_noise(text, short):
            table.report.add("threshold-noise", f"{_quoted(text)} for {short!r}")


def _has_noise(text: str, short: float) -> bool:
    """Whether the text is a short number but for digits past what a float64 can tell apart.

    A threshold that was read off a score has 16 or 17 digits by right, and is no short number.
    """
    digits = text.lower().partition("e")[0].replace(".", "").lstrip("+-0").rstrip("0")
    return len(digits) > 15 and math.isclose(float(text), short, rel_tol=1e-14)


def _check_plausible(table: _Table) -> None:
    low, high = PLAUSIBLE_SHARE
    if rows := table.labels.total():
        share = table.labels["1"] / rows
        if not low <= share <= high:
            table.report.add("positive-share", f"{share:.1%} of {rows:,} rows")
    if len(table.probs) > 1 and len(set(table.probs.values())) == 1:
        table.report.add("constant-prob", repr(next(iter(table.probs.values()))))


def _check_other(table: _Table, other: Path) -> None:
    # The other file's own faults are told when it is checked itself.
    theirs = _read(other, None, table.test_set, _Report())
    if theirs is None or not theirs.probs:
        table.report.add("other-unreadable", _quoted(other.name))
        return
    shared = table.probs.keys() & theirs.probs.keys()
    if not shared or any(abs(table.probs[i] - theirs.probs[i]) > SAME_PROB for i in shared):
        return
    same_threshold = _values(table.thresholds) == _values(theirs.thresholds)
    code = "same-as-other" if same_threshold else "only-threshold-differs"
    table.report.add(code, f"{_quoted(other.name)}, on {len(shared):,} images")


def _values(thresholds: Iterable[str]) -> set[float]:
    return {float(text) for text in thresholds}


def _number(text: str) -> float | None:
    # float() alone would also take "1_0", " 1", "nan" and digits of other scripts.
    return float(text) if _NUMBER.fullmatch(text) else None


def _quoted(text: str) -> str:
    """The text for a message: short, and with nothing in it that a terminal would act on."""
    return repr(text if len(text) <= 60 else f"{text[:57]}...")


# ---------------------------------------------------------------------------- ids of a test set


def image_ids_of(directory_or_archive: Path) -> list[str]:
    """The sorted file names of the images in a folder or an archive: the ids a run must hold.

    A folder is searched with all its subfolders; of a .tar, .tar.gz, .tgz or .zip only the listing
    is read, nothing is unpacked. What is no image to ``is_image`` is left out: other suffixes, and
    hidden files such as those macOS adds to archives. Ids carry no folder (MediaEval 2025 SynthIM
    README / 2026), so two images of one name cannot be told apart.

    Raises UserError: nothing there, an unknown or damaged archive, no image, two of one name.
    """
    path = directory_or_archive
    found: dict[str, str] = {}
    for member in sorted(set(_members(path))):
        if not is_image(member):
            continue
        name = base_name(member)
        if name in found:
            raise UserError(
                f"{path}: two images are named {name}: {found[name]} and {member}; "
                "ids are file names without folders, so keep one of them"
            )
        found[name] = member
    if not found:
        known = ", ".join(sorted(IMAGE_SUFFIXES))
        raise UserError(f"{path}: holds no image; looked for the suffixes {known}")
    return sorted(found)


def _members(path: Path) -> list[str]:
    lower = path.name.lower()
    try:
        if path.is_dir():
            return _files_below(path)
        if not path.is_file():
            raise UserError(f"{path}: is neither a folder nor a file")
        if lower.endswith(".zip"):
            with zipfile.ZipFile(path) as archive:
                return [name for name in archive.namelist() if not name.endswith("/")]
        if lower.endswith(_TAR_SUFFIXES):
            with tarfile.open(path) as tar:
                return [member.name for member in tar if not member.isdir()]
    except _ARCHIVE_ERRORS as error:
        raise UserError(f"{path}: cannot be listed ({error})") from error
    raise UserError(f"{path}: give a folder, or a {', '.join(_TAR_SUFFIXES)} or .zip archive")


def _files_below(folder: Path) -> list[str]:
    def fail(error: OSError) -> None:  # os.walk would pass over what it cannot read
        raise error

    return [
        (Path(parent) / name).relative_to(folder).as_posix()
        for parent, _, names in os.walk(folder, onerror=fail)
        for name in names
    ]


def base_name(name: str) -> str:
    """What an image's id is: its file name without folders, whichever slashes they have."""
    return _SLASH.split(name)[-1]


def _stem(name: str) -> str:
    return name.rpartition(".")[0]


def _has_suffix(name: str) -> bool:
    return os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES


def _is_apple_double(member: str) -> bool:
    parts = _SLASH.split(member)
    return parts[-1].startswith("._") or "__MACOSX" in parts

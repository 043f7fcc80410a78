"""Writing of run files."""

import csv
import io
import itertools
import os
import tempfile
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd

from synthdetect.evaluation.decision import Decision
from synthdetect.submission.checking import check_submission
from synthdetect.submission.format import COLUMNS, RUNS, TEAM_NAME, edition_named
from synthdetect.system.errors import UserError


def write_submission(
    predictions: pd.DataFrame,
    folder: Path,
    *,
    team: str,
    run: str,
    edition: str,
    threshold: float,
) -> Path:
    """Write a run file and check it.

    Numbers are written so that they read back as exactly the same float64, and labels follow from
    the written numbers. The same input gives the same bytes. The file is replaced atomically, and
    only if `check_submission` finds no error in it; warnings do not prevent this.

    Args:
        predictions: Columns `image_id` (file name with extension, without folder) and `prob`
            (probability that the image is synthetic). Other columns are ignored; the order is kept.
        folder: Folder of the file, made if it does not exist.
        team: Name of the team; must match `format.TEAM_NAME`.
        run: One of `format.RUNS`.
        edition: Key of `format.EDITIONS`.
        threshold: Threshold, 0 to 1.

    Returns:
        Path of the file.

    Raises:
        UserError: If an argument or an image_id or prob is not allowed by the format, or the folder
            cannot be written to.
    """
    form = edition_named(edition)
    threshold = float(threshold)
    if not TEAM_NAME.fullmatch(team):
        raise UserError(f"--team: {team!r} must be 1 to 64 letters, digits and hyphens.")
    if run not in RUNS:
        raise UserError(f"--submission: {run!r} is unknown. Use one of {', '.join(RUNS)}.")
    if not 0 <= threshold <= 1:
        raise UserError(f"threshold: {threshold!r} must be a number from 0 to 1.")
    ids = _image_ids(predictions)
    text = _csv_text(ids, _probabilities(predictions), threshold)

    name = form.file_name(team, run)
    target = folder / name
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # The file is checked under its final name, which is also checked, in a folder of its own.
        with tempfile.TemporaryDirectory(dir=folder, prefix=".submission-") as scratch:
            draft = Path(scratch) / name
            draft.write_bytes(text if form.suffix == ".csv" else _zipped(text, f"{team}_{run}.csv"))
            findings = check_submission(draft, edition=edition)
            errors = [finding.message for finding in findings if finding.severity == "error"]
            if errors:
                raise UserError("predictions: " + " ".join(errors))
            os.replace(draft, target)
    except OSError as error:
        raise UserError(f"{target}: cannot be written ({error.strerror or error}).") from error
    return target


def _image_ids(predictions: pd.DataFrame) -> list[str]:
    for column in ("image_id", "prob"):
        if list(predictions.columns).count(column) != 1:
            raise UserError(f"predictions: must have one column named {column}.")
    ids = list(predictions["image_id"])
    for row, image_id in enumerate(ids):
        if not isinstance(image_id, str):
            raise UserError(f"predictions: row {row}: image_id {image_id!r} is not text.")
    return ids


def _probabilities(predictions: pd.DataFrame) -> list[float]:
    column = predictions["prob"]
    if not pd.api.types.is_numeric_dtype(column.dtype):
        raise UserError(f"predictions: prob must hold numbers, not {column.dtype}.")
    # Compared as float64, as written: in float32, values that differ may equal the threshold.
    return list(map(float, column.to_numpy(dtype=np.float64, na_value=np.nan)))


def _csv_text(ids: list[str], probs: list[float], threshold: float) -> bytes:
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(COLUMNS)
    labels = Decision(threshold=threshold).answer(probs).label.tolist()
    # repr gives the shortest text that reads back as the same float.
    writer.writerows(
        zip(ids, map(repr, probs), labels, itertools.repeat(repr(threshold)), strict=False)
    )
    try:
        return buffer.getvalue().encode("utf-8")
    except UnicodeEncodeError as error:
        raise UserError(
            f"predictions: an image_id cannot be written as UTF-8 ({error.reason})."
        ) from error


def _zipped(text: bytes, name: str) -> bytes:
    # Fixed metadata: the bytes must not depend on the clock, the platform or permissions.
    member = zipfile.ZipInfo(name, date_time=(1980, 1, 1, 0, 0, 0))
    member.create_system = 3
    member.external_attr = 0o644 << 16
    member.compress_type = zipfile.ZIP_DEFLATED
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr(member, text, compresslevel=6)
    return buffer.getvalue()

"""Checks of run files, written by synthdetect or by others."""

import math
import re
from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from pathlib import Path

from synthdetect.submission.faults import Faults, Finding, quoted
from synthdetect.submission.format import RUNS, TEAM_NAME, Edition, edition_named
from synthdetect.submission.image_ids import ImageIds
from synthdetect.submission.reading import Row, Unreadable, read_rows

PLAUSIBLE_SHARE = (0.1, 0.9)  # of rows labelled synthetic; in the official sets, half are
SAME_PROB = 1e-6  # largest difference in prob between two copies of one run

# Each alternative matches in one way only, so that a long hostile field takes linear time.
_NUMBER = re.compile(r"[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")
_FILE_NAME = re.compile(rf"(?P<team>.+)_(?:{'|'.join(RUNS)})\.(?:zip|csv)")


def check_submission(
    path: Path,
    *,
    image_ids: Collection[str] | None = None,
    edition: str | None = None,
    other: Path | None = None,
) -> list[Finding]:
    """Find everything that is wrong with a run file. Any content gives findings, not an exception.

    Args:
        path: The run file. See `synthdetect.submission.format`.
        image_ids: Ids of the test set (`image_ids_of`). Without them, missing and unknown ids
            cannot be found, and an id must end in one of `layouts.IMAGE_SUFFIXES`.
        edition: Key of `EDITIONS`. Without it, the suffix of the file decides.
        other: The other run of the team. The probabilities of the two must differ on the images
            that both have, not only the thresholds.

    Returns:
        The findings in the order of `faults.FAULTS`; none if the file is correct.

    Raises:
        UserError: If the edition is unknown or a path is not a readable file.
    """
    form = None if edition is None else edition_named(edition)
    ids = ImageIds(image_ids)
    faults = Faults()
    _check_name(path, form, faults)
    run = _read(path, form, ids, faults)
    if run is not None:  # these checks need all rows
        _check_ids(run)
        _check_thresholds(run)
        _check_plausible(run)
        if other is not None:
            _check_other(run, other)
    return faults.findings()


@dataclass
class _Run:
    """Checks rows one by one, and keeps what the checks of the whole run need.

    Attributes:
        lines: First line of each image id.
        probs: Valid probability of each image id.
        labels: Number of rows with each valid label.
        thresholds: Number of rows with each valid threshold, as written.
    """

    ids: ImageIds
    faults: Faults
    lines: dict[str, int] = field(default_factory=dict)
    probs: dict[str, float] = field(default_factory=dict)
    labels: Counter[str] = field(default_factory=Counter)
    thresholds: Counter[str] = field(default_factory=Counter)

    def add(self, row: Row) -> None:
        """Check a row."""
        image_id = self._check_id(row)
        if row.values is None:
            return
        prob_text, label, threshold_text = row.values
        prob = self._check_share("prob-value", row, prob_text)
        threshold = self._check_share("threshold-value", row, threshold_text)
        if prob is not None:
            self.probs[image_id] = prob
        if threshold is not None:
            self.thresholds[threshold_text] += 1
        if label not in ("0", "1"):
            self._report("label-value", row, quoted(label))
            return
        self.labels[label] += 1
        if prob is not None and threshold is not None and int(label) != (prob >= threshold):
            detail = f"label {label}, prob {prob!r}, threshold {threshold!r}"
            self._report("label-contradicts", row, detail)

    def _report(self, code: str, row: Row, detail: str = "") -> None:
        self.faults.add_row(code, row.line, row.image_id, detail)

    def _check_id(self, row: Row) -> str:
        image_id, correct = self.ids.match(row.image_id)
        if not correct:
            self._report("id-spelling", row)
        first = self.lines.setdefault(image_id, row.line)
        if image_id and first != row.line:
            self._report("duplicate-ids", row, f"first on line {first}")
        return image_id

    def _check_share(self, code: str, row: Row, text: str) -> float | None:
        # float() alone would also accept "1_0", " 1", "nan" and digits of other scripts.
        if _NUMBER.fullmatch(text) and 0 <= float(text) <= 1:
            return float(text)
        self._report(code, row, quoted(text))
        return None


def _check_name(path: Path, edition: Edition | None, faults: Faults) -> None:
    if edition is not None and path.suffix.lower() in {".zip", ".csv"} - {edition.suffix}:
        expected = edition.file_name("<team>", "<run>")
        faults.add("edition-mismatch", f"{edition.name} asks for {expected}, not {path.suffix}")
    match = _FILE_NAME.fullmatch(path.name)
    if match is None:
        faults.add("file-name", quoted(path.name))
    elif not TEAM_NAME.fullmatch(match["team"]):
        faults.add("team-name", quoted(match["team"]))


def _read(path: Path, edition: Edition | None, ids: ImageIds, faults: Faults) -> _Run | None:
    """Read and check all rows. Returns None if the file cannot be read to its end."""
    run = _Run(ids, faults)
    try:
        for row in read_rows(path, edition, faults):
            run.add(row)
        if not run.lines:
            raise Unreadable("it has no predictions; give one row per test image")
    except Unreadable as error:
        faults.add(error.code, str(error))
        return None
    return run


def _check_ids(run: _Run) -> None:
    if run.ids.known is None:
        return
    for image_id in sorted(run.ids.known - run.lines.keys()):
        run.faults.add("missing-ids", quoted(image_id))
    for image_id, line in run.lines.items():
        if image_id and image_id not in run.ids.known:
            run.faults.add_row("extra-ids", line, image_id)


def _check_thresholds(run: _Run) -> None:
    if len(_values(run.thresholds)) > 1:
        rows = run.thresholds.total()
        for text, count in run.thresholds.most_common():
            run.faults.add("threshold-several", f"{quoted(text)} in {count:,} of {rows:,} rows")
    for text in run.thresholds:
        short = float(f"{float(text):.10g}")
        if _has_noise(text, short):
            run.faults.add("threshold-noise", f"{quoted(text)} for {short!r}")


def _has_noise(text: str, short: float) -> bool:
    """Whether a number differs from a short one only in digits that a float64 cannot resolve.

    A threshold that equals a score has 16 or 17 digits without being close to a short number.
    """
    digits = text.lower().partition("e")[0].replace(".", "").lstrip("+-0").rstrip("0")
    return len(digits) > 15 and math.isclose(float(text), short, rel_tol=1e-14)


def _check_plausible(run: _Run) -> None:
    low, high = PLAUSIBLE_SHARE
    if rows := run.labels.total():
        share = run.labels["1"] / rows
        if not low <= share <= high:
            run.faults.add("positive-share", f"{share:.1%} of {rows:,} rows")
    if len(run.probs) > 1 and len(set(run.probs.values())) == 1:
        run.faults.add("constant-prob", repr(next(iter(run.probs.values()))))


def _check_other(run: _Run, path: Path) -> None:
    # Faults of the other file are reported when that file is checked itself.
    other = _read(path, None, run.ids, Faults())
    if other is None or not other.probs:
        run.faults.add("other-unreadable", quoted(path.name))
        return
    shared = run.probs.keys() & other.probs.keys()
    if not shared or any(abs(run.probs[i] - other.probs[i]) > SAME_PROB for i in shared):
        return
    differs = _values(run.thresholds) != _values(other.thresholds)
    note = "; only the threshold differs" if differs else ""
    run.faults.add("same-as-other", f"{quoted(path.name)}, on {len(shared):,} images{note}")


def _values(thresholds: Iterable[str]) -> set[float]:
    return {float(text) for text in thresholds}

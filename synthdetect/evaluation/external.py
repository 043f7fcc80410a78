"""External predictions: tables of other detectors, with the columns of a predictions table."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy.special import expit, logit

from synthdetect.datasets.dialects import read_table
from synthdetect.datasets.labels import REAL, label_of
from synthdetect.datasets.schema import COLUMNS, SPLIT_NAME, SPLIT_RULE, split_of
from synthdetect.evaluation.columns import Recognised, binary_labels, candidates, recognise
from synthdetect.system.arrays import FloatArray
from synthdetect.system.errors import UserError

MARGIN = 1e-7
"""Distance to which probabilities of 0 and 1, whose log-odds are infinite, are moved inside (0, 1);
less if other probabilities are closer to 0 or 1."""

_SCORES = ("logit", "probability")
_TEXT = tuple(name for name in COLUMNS if name != "label")
_LEAST, _MOST = -800.0, 40.0  # log-odds whose sigmoids are exactly 0 and 1


class External(NamedTuple):
    """A table of external predictions, and how it was read.

    Attributes:
        rows: The table, with the columns of a manifest, any further columns, `raw_logit` and, if it
            is the score, `probability`; a missing split is "test".
        moved: Number of probabilities of 0 or 1, whose log-odds were placed beyond all others.
        recognised: Columns that were found by their usual names.
    """

    rows: pd.DataFrame
    moved: int
    recognised: Recognised


def read_predictions(path: Path, names: Sequence[str]) -> External:
    """Read a table of external predictions.

    Args:
        path: CSV or Parquet file with the columns `path`, `label` and `logit` or `probability` (of
            being synthetic; the logit takes precedence), and optionally further columns of a
            manifest.
        names: names of these columns in the file where they differ, as `column=name in the file`.
            Usual names are recognised without.

    Raises:
        UserError: If the file cannot be read, a column is missing, a label is unknown, a path
            occurs twice in a split, or a score is not a number or not a probability.
    """
    table, given = _read(path), _pairs(names)
    _require_there(table, given, path)
    recognised = recognise(table, given, str(path))
    pairs = {**given, **recognised.pairs}
    shared = pairs.get("label") if pairs.get("label") == pairs.get("generator") else None
    if shared:  # one column for both, as `typ` of ClipBased-SyntheticImageDetection
        label = binary_labels(table[shared].astype(str), str(path))
        generator = table[shared].where(label == "synthetic", "")
        table = table.drop(columns=[shared]).assign(label=label, generator=generator)
        pairs = {ours: theirs for ours, theirs in pairs.items() if theirs != shared}
    table = _renamed(table, pairs)
    if "path" not in table and "label" in table and not table.empty:
        table["path"] = [f"row {number}" for number in range(1, len(table) + 1)]
    score = _score_column(table, path)
    values = pd.to_numeric(table[score], errors="coerce").to_numpy(dtype=np.float64)
    _require(np.isfinite(values), table, path, f"{score} is no finite number")
    moved = 0
    if score == "probability":
        problem = "probability lies outside 0 to 1; for logits give --columns logit=NAME"
        _require((values >= 0) & (values <= 1), table, path, problem)
        table["probability"] = values
        values, moved = _finite_logits(values)
    labels = table["label"].map(str)
    known = {name: label_of(name, where=str(path)) for name in labels.unique()}
    table["label"] = labels.map(known).astype("int8")
    for name in _TEXT:
        column = table[name] if name in table else pd.Series("", index=table.index)
        table[name] = column.astype(object).fillna("").astype(str).str.strip()
    table["split"] = table["split"].map(split_of).replace("", "test")
    invalid = [name for name in table["split"].unique() if not SPLIT_NAME.fullmatch(name)]
    valid = ~table["split"].isin(invalid).to_numpy()
    _require(valid, table, path, f"split is not a valid name; {SPLIT_RULE}")
    repeated = table.duplicated(["path", "split"]).to_numpy()
    _require(~repeated, table, path, "path is listed twice in its split")
    table["raw_logit"] = values
    further = [c for c in table if c not in (*COLUMNS, "raw_logit", *_SCORES, "predicted")]
    scores = ["raw_logit", *(["probability"] if score == "probability" else [])]
    table.loc[table["label"] == REAL, "generator"] = ""  # some lists name their data set there
    rows = table[[*COLUMNS, *further, *scores]].reset_index(drop=True)
    return External(rows, moved, recognised)


def keep_threshold_side(
    logits: FloatArray, probabilities: FloatArray, threshold: float
) -> FloatArray:
    """Adjust logits so that their sigmoids lie on the same side of a threshold as probabilities.

    The sigmoid of a probability's logit differs from it by rounding, which matters where the
    probability equals the threshold. The order of the logits is preserved.

    Args:
        logits: log-odds of the probabilities, shape (images,).
        probabilities: shape (images,).
        threshold: threshold of the probability.
    """
    # Bisection ends with neighbouring floats, between whose sigmoids the threshold lies.
    below, above = _LEAST, _MOST
    while (middle := (below + above) / 2) not in (below, above):
        below, above = (below, middle) if expit(middle) >= threshold else (middle, above)
    is_synthetic = probabilities >= threshold
    return np.where(is_synthetic, np.maximum(logits, above), np.minimum(logits, below))


def _read(path: Path) -> pd.DataFrame:
    if not path.is_file():
        raise UserError(f"--predictions: {str(path)!r} is no file.")
    try:
        if path.suffix.lower() == ".parquet":
            return pd.read_parquet(path)
        return read_table(path)
    except (OSError, ValueError) as error:
        raise UserError(f"--predictions: {path} cannot be read as a table: {error}") from error


def _pairs(names: Sequence[str]) -> dict[str, str]:
    pairs = {}
    for text in names:
        ours, equals, theirs = (part.strip() for part in text.partition("="))
        if not (ours and equals and theirs):
            raise UserError(f"--columns: give pairs such as label=target (got {text!r}).")
        pairs[ours] = theirs
    return pairs


def _require_there(table: pd.DataFrame, pairs: Mapping[str, str], path: Path) -> None:
    for ours, theirs in pairs.items():
        if theirs not in table:
            raise UserError(
                f"--columns: {path} has no column {theirs!r} for {ours}. Found: {_listed(table)}."
            )


def _renamed(table: pd.DataFrame, pairs: Mapping[str, str]) -> pd.DataFrame:
    for ours, theirs in pairs.items():
        table = table.drop(columns=[ours], errors="ignore") if ours != theirs else table
    return table.rename(columns={theirs: ours for ours, theirs in pairs.items()})


def _score_column(table: pd.DataFrame, path: Path) -> str:
    """Name of the column with the score, after checking that the table can be used."""
    for needed in ("path", "label"):
        if needed not in table:
            raise UserError(
                f"--predictions: {path} has no column {needed!r} (found: {_listed(table)}). "
                f"If it has another name, give --columns {needed}=NAME."
            )
    score = next((name for name in _SCORES if name in table), None)
    if score is None:
        offered = candidates(table, ("path", "label"))
        how = (
            f"Give {offered}" if offered else "Name it by --columns logit=NAME or probability=NAME"
        )
        raise UserError(
            f"--predictions: {path} has neither 'logit' nor 'probability', nor a score by another "
            f"usual name (found: {_listed(table)}). {how}; a score is higher for synthetic images."
        )
    if table.empty:
        raise UserError(f"--predictions: {path} has no rows.")
    return score


def _finite_logits(probabilities: FloatArray) -> tuple[FloatArray, int]:
    """Logits of probabilities, those of 0 and 1 moved to finite ones, and how many these are."""
    logits = logit(probabilities)
    others = logits[np.isfinite(logits)]
    least = np.min(others - 1, initial=logit(MARGIN))
    most = np.max(others + 1, initial=logit(1 - MARGIN))
    return np.clip(logits, least, most), int(np.isinf(logits).sum())


def _require(holds: np.ndarray, table: pd.DataFrame, path: Path, what: str) -> None:
    if not holds.all():
        row = int(np.argmin(holds))
        raise UserError(
            f"--predictions: {path}: row {row + 1} ({table['path'].iloc[row]!r}): {what}."
        )


def _listed(table: pd.DataFrame) -> str:
    return ", ".join(map(str, table.columns))

"""Anybody's table of predictions, read into the columns of ours."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.special import expit, logit

from synthdetect.datasets.dialects import read_table
from synthdetect.datasets.labels import label_of
from synthdetect.datasets.schema import COLUMNS, SPLIT_NAME, SPLIT_RULE, split_of
from synthdetect.system.arrays import FloatArray
from synthdetect.system.errors import UserError

NEAREST = 1e-7
"""How far 0 and 1, whose log-odds are infinite, are moved inside: less where others are nearer."""


_SCORES = ("logit", "probability")
_TEXT = tuple(name for name in COLUMNS if name != "label")
_LEAST, _MOST = -800.0, 40.0  # log-odds whose sigmoids are 0 and 1


def read_predictions(path: Path, names: Sequence[str]) -> tuple[pd.DataFrame, int]:
    """Read a table of predictions.

    Args:
        path: a CSV or Parquet file with `path`, `label` and `logit` or `probability` (of being
            synthetic; the logit is used where both are there), and any of the manifest's columns.
        names: the file's names of those columns where they differ, each as `ours=theirs`.

    Returns:
        The table with `COLUMNS`, what further columns there were, `raw_logit` and, if it is the
        score, `probability`; a missing split is "test". And how many probabilities are 0 or 1:
        their log-odds lie beyond all others.

    Raises:
        UserError: unreadable, a column that is not there, an unknown label, a path twice in one
            split, or a score that is no number or no probability; the message names the row.
    """
    table = _renamed(_read(path), _pairs(names), path)
    for needed in ("path", "label"):
        if needed not in table:
            raise UserError(
                f"--predictions: {path} has no column {needed!r} (found: {_listed(table)}). "
                f"If it is called otherwise, say --columns {needed}=NAME."
            )
    score = next((name for name in _SCORES if name in table), None)
    if score is None:
        raise UserError(
            f"--predictions: {path} has neither 'logit' nor 'probability' (found: "
            f"{_listed(table)}). Name the score by --columns logit=NAME or probability=NAME."
        )
    if table.empty:
        raise UserError(f"--predictions: {path} has no rows.")
    values = pd.to_numeric(table[score], errors="coerce").to_numpy(dtype=np.float64)
    _require(np.isfinite(values), table, path, f"{score} is no finite number")
    moved = 0
    if score == "probability":
        within = (values >= 0) & (values <= 1)
        _require(within, table, path, "probability lies outside 0 to 1 (a logit? then say so)")
        table["probability"] = values
        values = logit(values)
        moved = int(np.isinf(values).sum())
        others = values[np.isfinite(values)]
        least = np.min(others - 1, initial=logit(NEAREST))
        most = np.max(others + 1, initial=logit(1 - NEAREST))
        values = np.clip(values, least, most)
    names_found = table["label"].map(str)
    labels = {name: label_of(name, where=str(path)) for name in names_found.unique()}
    table["label"] = names_found.map(labels).astype("int8")
    for name in _TEXT:
        column = table[name] if name in table else pd.Series("", index=table.index)
        table[name] = column.astype(object).fillna("").astype(str).str.strip()
    table["split"] = table["split"].map(split_of).replace("", "test")
    odd = [name for name in table["split"].unique() if not SPLIT_NAME.fullmatch(name)]
    _require(
        ~table["split"].isin(odd).to_numpy(), table, path, f"its split is no name; {SPLIT_RULE}"
    )
    repeated = table.duplicated(["path", "split"]).to_numpy()
    _require(~repeated, table, path, "path is listed twice in its split")
    table["raw_logit"] = values
    further = [c for c in table if c not in (*COLUMNS, "raw_logit", *_SCORES, "predicted")]
    scores = ["raw_logit", *(["probability"] if score == "probability" else [])]
    return table[[*COLUMNS, *further, *scores]].reset_index(drop=True), moved


def on_its_side(logits: FloatArray, probabilities: FloatArray, threshold: float) -> FloatArray:
    """Log-odds whose sigmoids are on the side of a threshold on which the probabilities are.

    The sigmoid of a probability's log-odds is another one by a rounding, which counts where it is
    the threshold itself. The order stays.
    """
    below, above = _LEAST, _MOST  # neighbours in the end, between whose sigmoids the threshold is
    while (middle := (below + above) / 2) not in (below, above):
        below, above = (below, middle) if expit(middle) >= threshold else (middle, above)
    called = probabilities >= threshold
    return np.where(called, np.maximum(logits, above), np.minimum(logits, below))


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
            raise UserError(f"--columns: give pairs as label=target (got {text!r}).")
        pairs[ours] = theirs
    return pairs


def _renamed(table: pd.DataFrame, pairs: Mapping[str, str], path: Path) -> pd.DataFrame:
    for ours, theirs in pairs.items():
        if theirs not in table:
            raise UserError(
                f"--columns: {path} has no column {theirs!r} for {ours}. Found: {_listed(table)}."
            )
        table = table.drop(columns=[ours], errors="ignore") if ours != theirs else table
    return table.rename(columns={theirs: ours for ours, theirs in pairs.items()})


def _require(holds: np.ndarray, table: pd.DataFrame, path: Path, what: str) -> None:
    if not holds.all():
        row = int(np.argmin(holds))
        raise UserError(
            f"--predictions: {path}: row {row + 1} ({table['path'].iloc[row]!r}): {what}."
        )


def _listed(table: pd.DataFrame) -> str:
    return ", ".join(map(str, table.columns))

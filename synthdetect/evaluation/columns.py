"""Columns of other people's tables of predictions, recognised by the names that code writes.

A column is recognised only if no other could be meant as well. What is recognised is said, and what
is not is offered as the `--columns` to give.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from synthdetect.datasets.labels import LABELS, REAL
from synthdetect.datasets.schema import COLUMNS
from synthdetect.system.errors import UserError

_PATHS = (
    ("path", "filepath", "image_path", "img_path", "imgpath", "data_path", "file_path",
     "frame_path", "sample_path"),
    ("filename", "file_name", "image", "image_name", "img_name", "img", "file"),
    ("image_id", "img_id", "sample_id", "id", "name"),
)  # fmt: skip
_LABELS = (
    ("label", "true_label", "y_true", "gt_label", "ground_truth", "groundtruth", "gt",
     "actual_label", "target", "is_fake", "is_synthetic", "is_ai", "label_true", "true_class",
     "actual", "true"),
    ("class", "typ", "labels", "fake", "true_label_num", "y"),
)  # fmt: skip
_LOGITS = (("logit", "logits", "llr", "raw_logit", "logit_fake", "fake_logit"), ("fusion",))
_PROBABILITIES = (
    ("probability", "pred_prob_fake", "prob_fake", "fake_prob", "p_fake", "fake_probability",
     "probability_fake", "score_fake", "fake_score", "prob_synthetic", "p_synthetic",
     "synthetic_probability", "prob_ai", "ai_prob", "p_ai", "ai_probability", "prob_1",
     "prob_class_1"),
    ("prob", "pred_prob", "y_prob", "probs", "pred_proba", "proba", "y_proba"),
)  # fmt: skip
_SCORES = (("score", "y_score", "pred_score", "output", "scores"), ("pred", "y_pred", "prediction"))
_FURTHER = {
    "generator": ("generator", "generator_name", "generative_model", "gen_model", "typ", "model"),
    "split": ("split", "subset", "phase"),
    "source_id": ("source_id", "src_id", "source_image"),
}
# The names in each inner tuple are equally likely to mean the column; earlier tuples go first.

_REAL_NAME = "typ"
"""A column of ClipBased-SyntheticImageDetection: `real` or the name of the generator."""


@dataclass(frozen=True)
class Recognised:
    """The columns that were recognised.

    Attributes:
        pairs: Name in the table by the name of ours, apart from those that are the same.
    """

    pairs: Mapping[str, str]

    @property
    def words(self) -> str:
        """What was recognised, as the option would say it; empty if nothing was."""
        if not self.pairs:
            return ""
        given = ",".join(f"{ours}={theirs}" for ours, theirs in self.pairs.items())
        return f"columns recognised by their names, as by --columns {given}"


def recognise(table: pd.DataFrame, given: Mapping[str, str], where: str) -> Recognised:
    """Find the columns `path`, `label`, score and further ones that are not given.

    Args:
        table: A table of text, or of a Parquet file.
        given: Name in the table by the name of ours, as the user gave it.
        where: The file, for messages.

    Raises:
        UserError: If a column could be one of several; the message has the `--columns` to give.
    """
    pairs = dict(given)
    taken = set(given.values())
    for ours, groups in (("path", _PATHS), ("label", _LABELS)):
        if ours not in pairs:
            names = _named(table, groups, taken)
            names = [n for n in names if ours != "label" or _holds_labels(table, n)] or names
            _require_one(ours, names, where)
            if names:
                pairs[ours] = names[0]
                taken.add(names[0])
    if not {"logit", "probability"} & set(pairs):
        score = _score(table, taken, where)
        if score:
            pairs[score[0]] = score[1]
            taken.add(score[1])
    label = pairs.get("label", "")
    for ours, aliases in _FURTHER.items():
        found = _named(table, (aliases,), taken - {label} if ours == "generator" else taken)
        found = [n for n in found if n != label or _normal(n) == _REAL_NAME]
        found = [n for n in found if n == ours or table[n].nunique() > 1]
        if ours not in pairs and len(found) == 1:
            pairs[ours] = found[0]
    new = {ours: theirs for ours, theirs in pairs.items() if ours not in given and ours != theirs}
    return Recognised(new)


def candidates(table: pd.DataFrame, taken: Sequence[str]) -> str:
    """Return the columns that may hold the score, as the `--columns` to give; empty if none may."""
    offered = []
    for name in table:
        values = _numbers(table[name])
        if (
            name not in taken
            and name not in COLUMNS
            and values is not None
            and len(set(values)) > 2
        ):
            offered.append(f"--columns {_kind(values)}={name}")
    return " or ".join(offered[:8])


def binary_labels(labels: "pd.Series[str]", where: str) -> "pd.Series[str]":
    """Return labels of a column that has `real` or the name of a generator as names of labels."""
    known = labels.str.strip().str.lower().map(LABELS)
    if not (known == REAL).any():
        raise UserError(
            f"{where}: no row of the column {_REAL_NAME!r} is 'real'; name the label's column by "
            "--columns label=NAME."
        )
    return known.map({REAL: "real"}).fillna("synthetic")


def _score(table: pd.DataFrame, taken: set[str], where: str) -> tuple[str, str] | None:
    """Return the name of ours and of the table for the score; None if none is recognised."""
    for ours, groups in (("logit", _LOGITS), ("probability", _PROBABILITIES), ("", _SCORES)):
        names = []
        for name in _named(table, groups, taken):
            values = _numbers(table[name])
            # Of "pred" and the like, two values are answers and not scores.
            if name == ours or (values is not None and (ours or len(set(values)) > 2)):
                names.append(name)
        _require_one(ours or "probability", names, where)
        if names:
            values = _numbers(table[names[0]])
            return ours or _kind(values if values is not None else np.zeros(1)), names[0]
    return None


def _require_one(ours: str, names: Sequence[str], where: str) -> None:
    if len(names) > 1:
        offered = " or ".join(f"--columns {ours}={name}" for name in names)
        raise UserError(
            f"--predictions: {where}: the columns {', '.join(map(repr, names))} may all be the "
            f"{ours}. Give {offered}."
        )


def _named(table: pd.DataFrame, groups: Sequence[Sequence[str]], taken: set[str]) -> list[str]:
    """Return the columns of the first group of names that has any; ours alone if it is there."""
    for group in groups:
        exact = [name for name in table if name == group[0] and name not in taken]
        if exact:
            return exact
        found = [str(name) for name in table if _normal(name) in group and name not in taken]
        if found:
            return found
    return []


def _holds_labels(table: pd.DataFrame, name: str) -> bool:
    values = table[name].astype(str).str.strip().str.lower().unique()
    return _normal(name) == _REAL_NAME or all(value in LABELS for value in values)


def _numbers(column: "pd.Series[str]") -> np.ndarray | None:
    values = pd.to_numeric(column, errors="coerce").to_numpy(dtype=np.float64)
    return values if len(values) and np.isfinite(values).all() else None


def _kind(values: np.ndarray) -> str:
    return "probability" if values.min() >= 0 and values.max() <= 1 else "logit"


def _normal(name: object) -> str:
    return str(name).strip().lower().replace("-", "_").replace(" ", "_")

"""The predictions table: what a detector said of each image, and every metric's only input.

Columns `path,label,split,generator,category,source_id` and the manifest's further ones, then
`logit` (calibrated log-odds of "synthetic"), `probability` (its sigmoid) and `predicted` (0 or 1).
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.special import expit

from synthdetect.data.labels import REAL, SYNTHETIC
from synthdetect.data.splits import group_codes
from synthdetect.evaluation.metrics import intervals, metrics

_NOT_IN_NAMES = re.compile(r"[^A-Za-z0-9_\-. :]")  # what a metric's name cannot have in MLflow

NOT_SHOWN = ("bytes", "mtime_ns")
"""Columns of the index that say nothing about an image's content."""


def tabulate(rows: pd.DataFrame, logits: npt.NDArray[np.float64], threshold: float) -> pd.DataFrame:
    """Put calibrated logits beside the manifest's rows."""
    table = rows.drop(columns=[c for c in NOT_SHOWN if c in rows]).copy()
    table["logit"] = logits
    table["probability"] = expit(logits)
    table["predicted"] = (table["probability"] >= threshold).astype("int8")
    return table


def summarise(table: pd.DataFrame, threshold: float, *, seed: int) -> pd.DataFrame:
    """All metrics of one table with 95 % intervals, resampling whole sources."""
    return intervals(table["label"], table["logit"], threshold, group_codes(table), seed=seed)


def per_generator(table: pd.DataFrame, threshold: float, *, seed: int) -> pd.DataFrame:
    """Each generator against all real images of the table, as the field does it.

    Returns:
        A row a generator, sorted: `generator`, `images` of it, and for each metric its value, with
        `auc_low` and `auc_high` beside the AUC. Empty if there are no real images or no generators.
    """
    real = table[table["label"] == REAL]
    rows: list[dict[str, Any]] = []
    synthetic = table[table["label"] == SYNTHETIC]
    for generator, images in synthetic.groupby("generator") if len(real) else ():
        both = pd.concat([real, images])
        measured = summarise(both, threshold, seed=seed).set_index("metric")
        auc = measured.loc["auc"]
        rows.append(
            {
                "generator": generator or "(unnamed)",
                "images": len(images),
                "auc": auc["value"],
                "auc_low": auc["low"],
                "auc_high": auc["high"],
                **measured["value"].drop("auc").to_dict(),
            }
        )
    return pd.DataFrame(rows)


def against_real(table: pd.DataFrame, real: pd.DataFrame) -> float:
    """AUC of a real-only table's images against other real images: 0.5 is what one wants.

    Far above 0.5 means that the detector takes whatever sets these apart (a control's blur, say)
    for a sign of generation.
    """
    scores = np.concatenate([real["logit"], table["logit"]])
    labels = np.repeat([REAL, SYNTHETIC], [len(real), len(table)])
    return metrics(labels, scores, 0.5)["auc"]


@dataclass(frozen=True)
class Evaluation:
    """Everything measured on one split.

    Attributes:
        split: its name.
        predictions: the predictions table.
        overall: metric, value, low, high.
        generators: a row a generator.
        control_auc: for a real-only split, `against_real`; else nan.
    """

    split: str
    predictions: pd.DataFrame
    overall: pd.DataFrame
    generators: pd.DataFrame
    control_auc: float = float("nan")

    def flat(self, prefix: str) -> dict[str, float]:
        """Metrics by name, those that are defined."""
        values = {f"{prefix}/{m}": v for m, v in zip(*self._columns(), strict=True)}
        for row in self.generators.to_dict(orient="records"):
            name = _NOT_IN_NAMES.sub("_", row["generator"])
            values[f"{prefix}/generator/{name}/auc"] = row["auc"]
            values[f"{prefix}/generator/{name}/recall"] = row["recall"]
        values[f"{prefix}/auc_against_real"] = self.control_auc
        return {name: float(value) for name, value in values.items() if np.isfinite(value)}

    def _columns(self) -> tuple["pd.Series[str]", "pd.Series[float]"]:
        return self.overall["metric"], self.overall["value"]


def evaluate(
    tables: dict[str, pd.DataFrame], threshold: float, *, seed: int,
    progress: Callable[[str], None] = lambda split: None,
) -> dict[str, Evaluation]:  # fmt: skip
    """Evaluate the predictions of each split; real-only ones also against the test's real images.

    Args:
        tables: predictions by split.
        threshold: from validation.
        seed: of the bootstrap.
        progress: told which split is next.
    """
    result = {}
    for name, table in tables.items():
        progress(name)
        control = float("nan")
        if set(table["label"]) == {REAL} and "test" in tables and name != "test":
            test = tables["test"]
            control = against_real(table, test[test["label"] == REAL])
        result[name] = Evaluation(
            name,
            table,
            summarise(table, threshold, seed=seed),
            per_generator(table, threshold, seed=seed),
            control,
        )
    return result

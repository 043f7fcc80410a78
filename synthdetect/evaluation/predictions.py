"""The predictions table: what a detector said of each image, and every metric's only input.

Columns `path,label,split,generator,category,source_id` and the manifest's further ones, then
`raw_logit` (the network's own, where it is known), `logit` (calibrated log-odds of "synthetic"),
`probability` (its sigmoid, or what a foreign table says) and `predicted` (0 or 1).
"""

import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.special import expit

from synthdetect.datasets.labels import REAL, SYNTHETIC
from synthdetect.datasets.splits import group_codes
from synthdetect.evaluation.decision import Decision
from synthdetect.evaluation.metrics import (
    auc_interval,
    choose_threshold,
    interval,
    intervals,
    metrics,
    resampled,
)
from synthdetect.evaluation.slices import present, slice_table
from synthdetect.system.files import short_hash

_NOT_IN_NAMES = re.compile(r"[^A-Za-z0-9_\-. :]")  # what a metric's name cannot have in MLflow
_LONGEST_NAME = 100  # of a generator there: a metric's whole name has at most 250 characters

SCORES = ("raw_logit", "logit", "probability", "predicted")
"""Columns that say what a detector said."""

NOT_SHOWN = ("bytes", "mtime_ns")
"""Columns of the index that say nothing about an image's content."""


def tabulate(
    rows: pd.DataFrame,
    logits: npt.NDArray[np.float64],
    threshold: float,
    raw: npt.NDArray[np.float64] | None = None,
    probabilities: npt.NDArray[np.float64] | None = None,
) -> pd.DataFrame:
    """Put calibrated logits, and the network's own, beside the manifest's rows.

    Args:
        rows: of the manifest.
        logits: calibrated.
        threshold: of the probability.
        raw: the network's own.
        probabilities: where they are known otherwise than as sigmoids of `logits`, from which they
            differ by roundings, and are on the same side of the threshold.
    """
    table = rows.drop(columns=[c for c in (*NOT_SHOWN, *SCORES) if c in rows]).copy()
    if raw is not None:
        table["raw_logit"] = raw
    table["logit"] = logits
    table["probability"] = expit(logits) if probabilities is None else probabilities
    table["predicted"] = (table["probability"] >= threshold).astype("int8")
    return table


ORACLE_RULE = "balanced_accuracy"

AT_THRESHOLD = (
    "accuracy",
    "balanced_accuracy",
    "precision",
    "recall",
    "f1",
    "f1_macro",
    "real_accuracy",
    "fake_accuracy",
)
"""Metrics that depend on the threshold."""

CONTROL = "auc_against_real"
"""The metric that only a real-only split has."""

MEAN, WORST = "(mean)", "(worst)"
"""Rows of `per_generator` that stand for all generators together."""

_IN_METRICS = {MEAN: "generators/mean", WORST: "generators/worst"}


def summarise(table: pd.DataFrame, threshold: float, *, seed: int) -> pd.DataFrame:
    """All metrics of one table with 95 % intervals, resampling whole sources."""
    return intervals(table["label"], table["logit"], threshold, group_codes(table), seed=seed)


def per_generator(table: pd.DataFrame, threshold: float, *, seed: int) -> pd.DataFrame:
    """Each generator against all real images of the table, as the field does it.

    Returns:
        A row a generator, sorted: `generator`, `images` of it, and for each metric its value, with
        `auc_low` and `auc_high` beside the AUC; of two or more, also the rows `MEAN` and `WORST`,
        whose AUC is the mean and the lowest of all (their intervals are of the mean and the lowest
        in each replicate). Empty if there are no real images or no generators.
    """
    real = (table["label"] == REAL).to_numpy()
    synthetic = table.loc[~real, "generator"]
    if not real.any() or synthetic.empty:
        return pd.DataFrame()
    names = {g: real | (table["generator"] == g).to_numpy() & ~real for g in synthetic.unique()}
    draws = resampled(
        table["label"], table["logit"], threshold, group_codes(table), names, seed=seed
    )
    rows: list[dict[str, Any]] = []
    for generator in sorted(names):
        part = table[names[generator]]
        measured = metrics(part["label"], part["logit"], threshold)
        low, high = interval(draws[generator]["auc"])
        rows.append(
            {
                "generator": generator or "(unnamed)",
                "images": int((names[generator] & ~real).sum()),
                "auc": measured.pop("auc"),
                "auc_low": low,
                "auc_high": high,
                **measured,
            }
        )
    found = pd.DataFrame(rows)
    if len(found) > 1:
        aucs = np.stack([draws[g]["auc"] for g in names])
        for name, value, drawn in (
            (MEAN, found["auc"].mean(), aucs.mean(axis=0)),
            (WORST, found["auc"].min(), aucs.min(axis=0)),
        ):
            low, high = interval(drawn)
            bounds = {"auc_low": low, "auc_high": high}
            rows.append({"generator": name, "images": len(synthetic), "auc": value, **bounds})
    return pd.DataFrame(rows)


def against_real(
    table: pd.DataFrame, real: pd.DataFrame, *, seed: int
) -> tuple[float, float, float]:
    """AUC of a real-only table's images against other real images: 0.5 is what one wants.

    Far above 0.5 means that the detector takes whatever sets these apart (a control's blur, say)
    for a sign of generation.

    Returns:
        It and the bounds of its 95 % interval, for which sources of both tables are drawn: what was
        made of a photograph is drawn with it.
    """
    both = pd.concat([real, table], ignore_index=True)
    labels = np.repeat([REAL, SYNTHETIC], [len(real), len(table)])
    return auc_interval(labels, both["logit"], group_codes(both), seed=seed)


@dataclass(frozen=True)
class Evaluation:
    """Everything measured on one split.

    Attributes:
        split: its name.
        predictions: the predictions table.
        overall: metric, value, low, high; of a real-only split also `CONTROL` (`against_real`).
        generators: a row a generator, and their mean and worst.
        oracle: the metrics that depend on a threshold, at the one that is best on these very
            images (balanced accuracy): what no honest choice could have known. Empty without both
            classes.
        slices: a row a slice.
        extra: further numbers by name: `oracle/threshold`, and of an unsure band the share left
            `unsure/share` and the accuracy on the rest, `unsure/accuracy_of_the_rest`.
    """

    split: str
    predictions: pd.DataFrame
    overall: pd.DataFrame
    generators: pd.DataFrame
    oracle: pd.DataFrame
    slices: pd.DataFrame
    extra: dict[str, float]

    def flat(self, prefix: str) -> dict[str, float]:
        """Metrics by name, those that are defined."""
        values = {f"{prefix}/{m}": v for m, v in _pairs(self.overall)}
        values |= {f"{prefix}/oracle/{m}": v for m, v in _pairs(self.oracle)}
        for row in self.generators.to_dict(orient="records"):
            name = _IN_METRICS.get(row["generator"]) or _metric_name(row["generator"])
            if f"{prefix}/{name}/auc" in values:  # another one's name differs in what was replaced
                name += f"_{short_hash(row['generator'])}"
            values[f"{prefix}/{name}/auc"] = row["auc"]
            values[f"{prefix}/{name}/recall"] = row["recall"]
        values |= {f"{prefix}/{name}": value for name, value in self.extra.items()}
        return {name: float(value) for name, value in values.items() if np.isfinite(value)}


def _metric_name(generator: str) -> str:
    """As MLflow takes names: neither long, nor of dots alone, nor with other characters."""
    name = _NOT_IN_NAMES.sub("_", generator)
    if len(name) > _LONGEST_NAME:
        name = f"{name[:_LONGEST_NAME]}_{short_hash(generator)}"
    return f"generator/{name if name.strip('.') else '_' * len(name)}"


def _pairs(measured: pd.DataFrame) -> Iterator[tuple[str, float]]:
    if len(measured):
        yield from zip(measured["metric"], measured["value"], strict=True)


def evaluate(
    tables: Mapping[str, pd.DataFrame],
    threshold: float,
    *,
    seed: int,
    band: float = 0.0,
    slices: Sequence[str] | None = None,
    progress: Callable[[str], None] = lambda split: None,
) -> dict[str, Evaluation]:
    """Evaluate the predictions of each split; real-only ones also against the test's real images.

    Args:
        tables: predictions by split.
        threshold: from validation.
        seed: of the bootstrap.
        band: within which of the threshold the answer is "unsure".
        slices: columns to cut by; None cuts by those of `slices.AUTO` in which images differ.
        progress: told which split is next.

    Raises:
        UserError: no such column to cut by.
    """
    result = {}
    for name, table in tables.items():
        progress(name)
        overall = summarise(table, threshold, seed=seed)
        if set(table["label"]) == {REAL} and "test" in tables and name != "test":
            test = tables["test"]
            control = against_real(table, test[test["label"] == REAL], seed=seed)
            overall.loc[len(overall)] = [CONTROL, *control]
        extra = {}
        oracle = pd.DataFrame()
        if table["label"].nunique() == 2:
            best = choose_threshold(table["label"], table["logit"], ORACLE_RULE)
            extra["oracle/threshold"] = best
            at_best = summarise(table, best, seed=seed)
            oracle = at_best[at_best["metric"].isin(AT_THRESHOLD)].reset_index(drop=True)
        if band:
            left = Decision(threshold=threshold, unsure=band).answer(table["probability"]).unsure
            right = (table["predicted"] == table["label"])[~left]
            extra["unsure/share"] = float(left.mean())
            extra["unsure/accuracy_of_the_rest"] = float(right.mean()) if len(right) else math.nan
        cut_by = present(table) if slices is None else slices
        result[name] = Evaluation(
            name,
            table,
            overall,
            per_generator(table, threshold, seed=seed),
            oracle,
            slice_table(table, cut_by, threshold, seed=seed),
            extra,
        )
    return result

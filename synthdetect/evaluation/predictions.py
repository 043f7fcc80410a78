"""The predictions table, and the evaluation of a split from it.

The columns of a predictions table are `path`, `label`, `split`, `generator`, `category`,
`source_id` and further columns of the manifest, then `raw_logit` (the network's logit, if known),
`logit` (calibrated log-odds of "synthetic"), `probability` (its sigmoid, or the probability of an
external table), `predicted` (0 or 1) and, of a detector that attributes images, `attributed` (see
`synthdetect.evaluation.attribution`).
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
from synthdetect.evaluation.attribution import (
    ATTRIBUTED,
    attribution_metrics,
    attribution_table,
)
from synthdetect.evaluation.decision import Decision
from synthdetect.evaluation.intervals import (
    auc_interval,
    effective_sources,
    interval,
    jackknife_metrics,
    lowest_interval,
    metric_intervals,
)
from synthdetect.evaluation.matrix import WORST as WORST_CELL
from synthdetect.evaluation.matrix import default_real_by, real_groups_matrix
from synthdetect.evaluation.metrics import choose_threshold
from synthdetect.evaluation.slices import default_slices, slice_table
from synthdetect.system.files import short_hash

_NOT_IN_NAMES = re.compile(r"[^A-Za-z0-9_\-. :]")  # characters that MLflow refuses in metric names
_LONGEST_NAME = 100  # of a generator in a metric's name, which has at most 250 characters

_SCORES = ("raw_logit", "logit", "probability", "predicted", ATTRIBUTED)
_FILE_COLUMNS = ("bytes", "mtime_ns")  # columns of the index that do not describe the image
_ORACLE_RULE = "balanced_accuracy"

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
"""Metric of splits with real images only; see `against_real`."""

MEAN, WORST = "(mean)", "(worst)"
"""Rows of `per_generator` that summarise all generators."""

_IN_METRICS = {MEAN: "generators/mean", WORST: "generators/worst"}


def prediction_table(
    rows: pd.DataFrame,
    logits: npt.NDArray[np.float64],
    decision: Decision,
    raw: npt.NDArray[np.float64] | None = None,
    probabilities: npt.NDArray[np.float64] | None = None,
) -> pd.DataFrame:
    """Build a predictions table from rows of a manifest and their scores.

    Args:
        rows: rows of the manifest.
        logits: calibrated logits, shape (rows,).
        decision: decision that predicts the labels.
        raw: uncalibrated logits, shape (rows,).
        probabilities: probabilities, shape (rows,), if they are known otherwise than as sigmoids of
            the logits, from which they may differ by rounding. Both must lie on the same side of
            the threshold.
    """
    table = rows.drop(columns=[c for c in (*_FILE_COLUMNS, *_SCORES) if c in rows]).copy()
    if raw is not None:
        table["raw_logit"] = raw
    table["logit"] = logits
    table["probability"] = expit(logits) if probabilities is None else probabilities
    table["predicted"] = decision.answer(table["probability"]).label
    return table


def sampling_unit(table: pd.DataFrame) -> str:
    """Return `photograph` if a table names the photographs of images, and `image` otherwise.

    Without names, images are taken to be independent, apart from copies of one content.
    """
    return "photograph" if "source_id" in table and (table["source_id"] != "").any() else "image"


def overall_metrics(table: pd.DataFrame, threshold: float, *, seed: int) -> pd.DataFrame:
    """Compute all metrics of a predictions table with 95 % intervals over sources."""
    return metric_intervals(
        table["label"], table["logit"], threshold, group_codes(table), seed=seed
    )


def per_generator(table: pd.DataFrame, threshold: float, *, seed: int) -> pd.DataFrame:
    """Compute the metrics of each generator's images together with all real images of the table.

    Returns:
        One row per generator, sorted by name: `generator`, `images` (of the generator), `auc`,
        `auc_low`, `auc_high` (95 % interval) and the other metrics. With two or more generators,
        the rows `MEAN` and `WORST` hold the mean and the lowest of their AUCs, with intervals of
        the mean and of the lowest (`intervals.lowest_interval`). Empty if there are no real images
        or no generators.
    """
    real = (table["label"] == REAL).to_numpy()
    synthetic = table.loc[~real, "generator"]
    if not real.any() or synthetic.empty:
        return pd.DataFrame()
    masks = {g: real | (table["generator"] == g).to_numpy() & ~real for g in synthetic.unique()}
    label, groups = table["label"].to_numpy(), group_codes(table)
    jackknife = jackknife_metrics(label, table["logit"], threshold, groups, masks, seed=seed)
    aucs = {
        g: (jackknife[g]["auc"], effective_sources(label[mask], groups[mask]))
        for g, mask in masks.items()
    }
    rows: list[dict[str, Any]] = []
    for generator in sorted(masks):
        measured = {name: float(values[0]) for name, values in jackknife[generator].items()}
        low, high = interval(*aucs[generator])
        rows.append(
            {
                "generator": generator or "(unnamed)",
                "images": int((masks[generator] & ~real).sum()),
                "auc": measured.pop("auc"),
                "auc_low": low,
                "auc_high": high,
                **measured,
            }
        )
    found = pd.DataFrame(rows)
    if len(found) > 1:
        mean = np.mean([values for values, _ in aucs.values()], axis=0)
        for name, value, (low, high) in (
            (MEAN, found["auc"].mean(), interval(mean, effective_sources(label, groups))),
            (WORST, found["auc"].min(), lowest_interval(list(aucs.values()))),
        ):
            bounds = {"auc_low": low, "auc_high": high}
            rows.append({"generator": name, "images": len(synthetic), "auc": value, **bounds})
    return pd.DataFrame(rows)


def against_real(
    table: pd.DataFrame, real: pd.DataFrame, *, seed: int
) -> tuple[float, float, float]:
    """Compute the AUC that separates real images of a control split from other real images.

    It should be 0.5. A value far above 0.5 means that the detector takes what distinguishes the
    control images, such as blur, for a sign of generation.

    Args:
        table: predictions of the control split.
        real: predictions of other real images.
        seed: seed of `intervals`.

    Returns:
        The AUC and the bounds of its 95 % interval over the sources of both tables.
    """
    both = pd.concat([real, table], ignore_index=True)
    labels = np.repeat([REAL, SYNTHETIC], [len(real), len(table)])
    return auc_interval(labels, both["logit"], group_codes(both), seed=seed)


@dataclass(frozen=True)
class Evaluation:
    """The metrics of one split.

    Attributes:
        split: name of the split.
        predictions: predictions table.
        overall: columns `metric`, `value`, `low`, `high`; includes `CONTROL` for splits with real
            images only.
        generators: table of `per_generator`.
        oracle: as `overall`, for the metrics that depend on the threshold, at the threshold that
            maximises balanced accuracy on these very images: an upper bound, not an estimate of
            performance. Empty without both classes.
        slices: table of `slice_table`.
        matrix: table of `real_groups_matrix`; empty if it was not asked for.
        attribution: table of `attribution_table`; empty without attribution.
        attribution_metrics: table of `attribution.attribution_metrics`; empty without attribution.
        extra: further metrics by name: `oracle/threshold`, and with a band of doubt `unsure/share`
            (share of images in the band) and `unsure/accuracy_of_the_rest`.
    """

    split: str
    predictions: pd.DataFrame
    overall: pd.DataFrame
    generators: pd.DataFrame
    oracle: pd.DataFrame
    slices: pd.DataFrame
    matrix: pd.DataFrame
    attribution: pd.DataFrame
    attribution_metrics: pd.DataFrame
    extra: dict[str, float]

    @property
    def unit(self) -> str:
        """What the intervals are computed over: `photograph`, or `image` if none is named."""
        return sampling_unit(self.predictions)

    def flat(self, prefix: str) -> dict[str, float]:
        """Return all metrics that are defined, by name under a prefix."""
        values = {f"{prefix}/{m}": v for m, v in _pairs(self.overall)}
        values |= {f"{prefix}/oracle/{m}": v for m, v in _pairs(self.oracle)}
        values |= {f"{prefix}/attribution/{m}": v for m, v in _pairs(self.attribution_metrics)}
        for row in self.generators.to_dict(orient="records"):
            name = _IN_METRICS.get(row["generator"]) or _metric_name(row["generator"])
            if f"{prefix}/{name}/auc" in values:  # two names differ only in replaced characters
                name += f"_{short_hash(row['generator'])}"
            values[f"{prefix}/{name}/auc"] = row["auc"]
            values[f"{prefix}/{name}/recall"] = row["recall"]
        if len(self.matrix) and self.matrix["generator"].iloc[-1] == WORST_CELL:
            values[f"{prefix}/matrix/worst/auc"] = self.matrix["auc"].iloc[-1]
        values |= {f"{prefix}/{name}": value for name, value in self.extra.items()}
        return {name: float(value) for name, value in values.items() if np.isfinite(value)}


def _metric_name(generator: str) -> str:
    """Name for the metrics of a generator that MLflow accepts."""
    name = _NOT_IN_NAMES.sub("_", generator)
    if len(name) > _LONGEST_NAME:
        name = f"{name[:_LONGEST_NAME]}_{short_hash(generator)}"
    return f"generator/{name if name.strip('.') else '_' * len(name)}"


def _pairs(measured: pd.DataFrame) -> Iterator[tuple[str, float]]:
    if len(measured):
        yield from zip(measured["metric"], measured["value"], strict=True)


def evaluate(
    tables: Mapping[str, pd.DataFrame],
    decision: Decision,
    *,
    seed: int,
    slices: Sequence[str] | None = None,
    real_by: str = "",
    generators: Sequence[str] = (),
    progress: Callable[[str], None] = lambda split: None,
) -> dict[str, Evaluation]:
    """Evaluate the predictions of each split.

    Splits with real images only are also compared with the real images of the test split.

    Args:
        tables: predictions table by split.
        decision: decision from validation.
        seed: seed of `intervals`.
        slices: columns to slice by; None selects `slices.default_slices`.
        real_by: column that divides the real images of the matrix; an empty string for no matrix.
        generators: generators to which a detector attributes images; the tables have a column
            `attributed` then.
        progress: function called with the name of each split before it is evaluated.

    Raises:
        UserError: If a table lacks a column to slice by.
    """
    result, threshold = {}, decision.threshold
    for name, table in tables.items():
        progress(name)
        overall = overall_metrics(table, threshold, seed=seed)
        if set(table["label"]) == {REAL} and "test" in tables and name != "test":
            test = tables["test"]
            control = against_real(table, test[test["label"] == REAL], seed=seed)
            overall.loc[len(overall)] = [CONTROL, *control]
        extra = {}
        oracle = pd.DataFrame()
        if table["label"].nunique() == 2:
            best = choose_threshold(table["label"], table["logit"], _ORACLE_RULE)
            extra["oracle/threshold"] = best
            at_best = overall_metrics(table, best, seed=seed)
            oracle = at_best[at_best["metric"].isin(AT_THRESHOLD)].reset_index(drop=True)
        if decision.unsure:
            unsure = decision.answer(table["probability"]).unsure
            correct = (table["predicted"] == table["label"])[~unsure]
            extra["unsure/share"] = float(unsure.mean())
            accuracy = float(correct.mean()) if len(correct) else math.nan
            extra["unsure/accuracy_of_the_rest"] = accuracy
        attributed = of_attribution = pd.DataFrame()
        if generators:
            attributed = attribution_table(table, generators, real_by or default_real_by(table))
            of_attribution = attribution_metrics(table, generators, seed=seed)
        columns = default_slices(table) if slices is None else slices
        result[name] = Evaluation(
            name,
            table,
            overall,
            per_generator(table, threshold, seed=seed),
            oracle,
            slice_table(table, columns, threshold, seed=seed),
            real_groups_matrix(table, real_by, seed=seed) if real_by else pd.DataFrame(),
            attributed,
            of_attribution,
            extra,
        )
    return result

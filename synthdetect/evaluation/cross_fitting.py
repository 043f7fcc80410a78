"""Decisions on the out-of-fold predictions of a cross-validation, chosen by cross-fitting.

The folds of a cross-validation are scored by different networks, whose logits have different
scales, and a threshold that is judged on the images that chose it looks better than it is. Here
each fold's logits are calibrated before they are pooled, and what judges an image was chosen
without its photograph. Chernozhukov et al., "Double/debiased machine learning", Econometrics
Journal 2018, section 3, do the same with other nuisance parameters.

What this corrects for: calibration and threshold. What it does not correct for:

- The choice of the epoch. In folds of photographs each network is that of the epoch with the best
  AUC on the fold's own images, so its logits on them are those of the best of several epochs. Folds
  that leave generators out choose the epoch on other images.
- Differences between the folds' networks that the calibration cannot express: a temperature changes
  the scale of the logits but not their offset; Platt scaling changes both.
- The noise of calibrations that are fitted on few photographs, which lowers the pooled AUC.
- The refit: it has no images of its own to be calibrated on, so its answers are worse than those in
  the pool if the logits of networks of its kind differ much in scale or offset.
- The uncertainty of calibration and threshold: intervals of the pooled predictions take both as
  given.

`python -m benchmarks.cross_fitting` measures the bias that is left.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import pandas as pd

from synthdetect.datasets.splits import assign_groups
from synthdetect.evaluation.calibration import UNCALIBRATED, Calibration
from synthdetect.evaluation.decision import Decision, prior_of
from synthdetect.evaluation.metrics import choose_threshold
from synthdetect.evaluation.options import CALIBRATIONS, DecisionOptions
from synthdetect.evaluation.predictions import AT_THRESHOLD, Evaluation, evaluate, prediction_table
from synthdetect.system.arrays import FloatArray

_PARTS = 5
"""Number of parts of the photographs, each of which is judged by what the others chose."""

Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class CrossFitted:
    """Calibrated logits and thresholds of pooled predictions, and the decision of all of them.

    Attributes:
        logits: Calibrated logit of each row, shape (rows,).
        thresholds: Threshold of the probability that judges each row, shape (rows,).
        decision: The decision of a further network that is trained like those of the folds: the
            median of the folds' calibrations, the threshold chosen on `logits`, and the share of
            synthetic images among those on which the calibrations were fitted.
    """

    logits: FloatArray
    thresholds: FloatArray
    decision: Decision


def cross_fit(
    options: DecisionOptions,
    pool: pd.DataFrame,
    *,
    seed: int,
    validation: pd.DataFrame | None = None,
) -> CrossFitted:
    """Calibrate the logits of each fold, and choose thresholds on the calibrated pool.

    Without `validation`, the photographs are divided into five parts. For each part, every fold's
    calibration is fitted on the fold's rows in the other parts, and the threshold is chosen on all
    rows in the other parts. With `validation`, a fold's calibration is fitted on its rows of that
    table, and the threshold that judges a fold is chosen on the rows of the other folds. Where a
    calibration would be fitted on one class only, the logits stay as they are, and a threshold that
    would be chosen on one class only is 0.5. This happens only with a handful of photographs.

    Args:
        options: Methods of calibration and of choosing the threshold.
        pool: A row for each image: `label`, `raw_logit`, `fold`, and the columns by which
            `datasets.splits.group_codes` recognises images of one photograph, each of which is in
            one fold.
        seed: Seed of the division into parts.
        validation: Images on which a network chose its epoch and which the pool does not have:
            `label`, `raw_logit` and `fold` (the fold whose network scored them).
    """
    labels, raw, fold = (pool[name].to_numpy() for name in ("label", "raw_logit", "fold"))
    everything = np.ones(len(pool), dtype=bool)
    if validation is None:
        fitted = _calibrations(options, pool)
        by_fold = pool.assign(category=fold)
        part = assign_groups(by_fold, [1 / _PARTS] * _PARTS, seed=seed, by_category=True)
    else:
        fitted, part = _calibrations(options, validation), fold
    logits, thresholds = np.empty(len(pool)), np.empty(len(pool))
    for number in np.unique(part):
        judged = part == number
        calibrations = fitted if validation is not None else _calibrations(options, pool[~judged])
        calibrated = _calibrated(calibrations, raw, fold)
        logits[judged] = calibrated[judged]
        thresholds[judged] = _threshold(options, labels, calibrated, ~judged)
    threshold = _threshold(options, labels, logits, everything)
    calibration = _median(list(fitted.values()))
    prior = prior_of(labels if validation is None else validation["label"])
    decision = Decision(calibration, threshold, options.unsure, prior)
    return CrossFitted(logits, thresholds, decision)


def evaluate_cross_fitted(
    pool: pd.DataFrame, fitted: CrossFitted, split: str, *, seed: int
) -> Evaluation:
    """Evaluate pooled predictions, each judged by its own threshold.

    Args:
        pool: As for `cross_fit`, with the columns of a predictions table.
        fitted: What `cross_fit` returned for it.
        split: Name of the evaluation.
        seed: Seed of `intervals`.

    Returns:
        An evaluation in which the metrics `AT_THRESHOLD` and the column `predicted` are those of
        the cross-fitted thresholds. The band of doubt lies around these, too.
    """
    raw = pool["raw_logit"].to_numpy()
    table = prediction_table(pool, fitted.logits, fitted.decision, raw)
    table["predicted"] = (table["probability"] >= fitted.thresholds).astype(np.int8)
    found = evaluate({split: table}, fitted.decision, seed=seed)[split]
    # Metrics at a threshold depend on the answers only, so any logits on the same side will do.
    answers = table.assign(logit=np.where(table["predicted"], 1.0, -1.0))
    judged = evaluate({split: answers}, Decision(), seed=seed)[split]
    extra = dict(found.extra)
    if fitted.decision.unsure:
        sure = np.abs(table["probability"] - fitted.thresholds) >= fitted.decision.unsure
        correct = (table["predicted"] == table["label"])[sure]
        accuracy = float(correct.mean()) if len(correct) else np.nan
        extra |= {"unsure/share": float(1 - sure.mean()), "unsure/accuracy_of_the_rest": accuracy}
    overall = found.overall.set_index("metric")
    overall.loc[list(AT_THRESHOLD)] = judged.overall.set_index("metric").loc[list(AT_THRESHOLD)]
    return replace(
        found,
        overall=overall.reset_index(),
        generators=_at_threshold(found.generators, judged.generators),
        slices=_at_threshold(found.slices, judged.slices),
        extra=extra,
    )


def _at_threshold(found: pd.DataFrame, judged: pd.DataFrame) -> pd.DataFrame:
    return found.assign(**{name: judged[name] for name in AT_THRESHOLD if name in found})


def _calibrations(options: DecisionOptions, rows: pd.DataFrame) -> dict[int, Calibration]:
    """Fit the calibration of each fold that has both classes."""
    fit = CALIBRATIONS[options.calibration].load()
    return {
        fold: fit(own["label"], own["raw_logit"])
        for fold, own in rows.groupby("fold")
        if own["label"].nunique() == 2
    }


def _calibrated(
    calibrations: Mapping[int, Calibration], raw: FloatArray, fold: npt.NDArray[np.int64]
) -> FloatArray:
    result = np.empty(len(raw))
    for number in np.unique(fold):
        own = fold == number
        result[own] = calibrations.get(number, UNCALIBRATED)(raw[own])
    return result


def _threshold(
    options: DecisionOptions, labels: npt.NDArray[np.int8], logits: FloatArray, rows: Mask
) -> float:
    if len(np.unique(labels[rows])) < 2:
        return 0.5
    return choose_threshold(labels[rows], logits[rows], options.threshold_rule, options.max_fpr)


def _median(calibrations: list[Calibration]) -> Calibration:
    """Return the median of calibrations, which does not decrease because none of them does."""
    if not calibrations:
        return UNCALIBRATED
    if not calibrations[0].knots:
        slope, offset = np.median([(c.slope, c.offset) for c in calibrations], axis=0)
        return Calibration(float(slope), float(offset))
    before = np.unique([knot[0] for calibration in calibrations for knot in calibration.knots])
    after = np.median([calibration(before) for calibration in calibrations], axis=0)
    return Calibration(knots=tuple(zip(before.tolist(), after.tolist(), strict=True)))

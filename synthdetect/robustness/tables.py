"""Tables of metrics under perturbations, and the metrics that a run logs from them.

`predictions` is always the predictions table of one split, `logits` are calibrated logits of shape
(perturbations, images), and `threshold` is the one chosen on unperturbed validation images.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.special import expit

from synthdetect.datasets.labels import REAL, SYNTHETIC
from synthdetect.datasets.splits import Codes, group_codes
from synthdetect.evaluation.intervals import (
    effective_sources,
    interval,
    jackknife_auc,
    jackknife_share,
)
from synthdetect.evaluation.metrics import metrics
from synthdetect.images.perturbations import PERTURBATIONS, UNPERTURBED, PerturbationLevel
from synthdetect.system.arrays import FloatArray

MEASURES = ("balanced_accuracy", "real_accuracy", "fake_accuracy", "f1", "ece")
"""Metrics in the tables besides the AUC and its change, and the rate of flips."""

RE_ENCODINGS = ("jpeg", "webp", "avif")
"""Perturbations that change nothing but the encoding."""

REENCODED = "any re-encoding"
"""Row of `flip_table` for `RE_ENCODINGS`."""


def robustness_table(
    predictions: pd.DataFrame,
    logits: FloatArray,
    perturbations: Sequence[PerturbationLevel],
    threshold: float,
    *,
    seed: int,
) -> pd.DataFrame:
    """Compute the metrics under each perturbation, with 95 % intervals over sources.

    Args:
        predictions: predictions table of one split.
        logits: calibrated logits, shape (perturbations, images).
        perturbations: perturbation levels, one of which is `UNPERTURBED`.
        threshold: threshold from validation.
        seed: seed of `intervals`.

    Returns:
        One row per perturbation level: `perturbation` and `level` (`none` and 0 for unperturbed
        images), `images`, `auc`, `auc_low`, `auc_high`, `auc_change` (difference to the unperturbed
        images), `auc_change_low`, `auc_change_high` (paired interval: both are computed without the
        same sources), `flip_rate` (share of images whose answer differs from that to the
        unperturbed image), `flip_rate_low`, `flip_rate_high`, and `MEASURES`.
    """
    table = _compared(predictions, logits, perturbations.index(UNPERTURBED), threshold, seed)
    table.insert(0, "perturbation", [perturbation.name for perturbation in perturbations])
    table.insert(1, "level", [perturbation.level for perturbation in perturbations])
    return table


def equalised_table(
    predictions: pd.DataFrame, logits: Mapping[str, FloatArray], threshold: float, *, seed: int
) -> pd.DataFrame:
    """Compare differently encoded versions of the images with the first version.

    Args:
        predictions: predictions table of one split.
        logits: calibrated logits by name of the version, each of shape (images,).
        threshold: threshold from validation.
        seed: seed of `intervals`.

    Returns:
        One row per version: `condition` (its name), `split`, and the columns of `robustness_table`
        from `images` on.
    """
    table = _compared(predictions, np.stack(list(logits.values())), 0, threshold, seed)
    table.insert(0, "condition", list(logits))
    table.insert(1, "split", predictions["split"].to_numpy()[0])
    return table


def _compared(
    predictions: pd.DataFrame, logits: FloatArray, reference: int, threshold: float, seed: int
) -> pd.DataFrame:
    """Metrics of each row of logits, and the difference of its AUC to that of a reference row."""
    labels, groups = predictions["label"].to_numpy(), group_codes(predictions)
    values = [metrics(labels, scores, threshold) for scores in logits]
    aucs = [jackknife_auc(labels, scores, groups, seed=seed) for scores in logits]
    sources = effective_sources(labels, groups)
    flips = _flips(logits, reference, threshold)
    rows: list[dict[str, Any]] = []
    for value, auc, flipped in zip(values, aucs, flips, strict=True):
        low, high = interval(auc, sources)
        change_low, change_high = interval(auc - aucs[reference], sources, scale="difference")
        rows.append(
            {
                "images": len(labels),
                "auc": value["auc"],
                "auc_low": low,
                "auc_high": high,
                "auc_change": value["auc"] - values[reference]["auc"],
                "auc_change_low": change_low,
                "auc_change_high": change_high,
                **_share("flip_rate", flipped, groups, seed),
                **{name: value[name] for name in MEASURES},
            }
        )
    return pd.DataFrame(rows)


def flip_table(
    predictions: pd.DataFrame,
    logits: FloatArray,
    perturbations: Sequence[PerturbationLevel],
    threshold: float,
    *,
    seed: int,
) -> pd.DataFrame:
    """Count the images whose answer changes under any level of a perturbation.

    Args:
        predictions: predictions table of one split.
        logits: calibrated logits, shape (perturbations, images).
        perturbations: perturbation levels, one of which is `UNPERTURBED`.
        threshold: threshold from validation.
        seed: seed of `intervals`.

    Returns:
        One row per perturbation, and a row `REENCODED` for all levels of `RE_ENCODINGS` if there is
        one: `perturbation`, `levels` (their number), `images`, `flip_rate` (share of images whose
        answer differs from that to the unperturbed image at any of the levels), `flip_rate_low` and
        `flip_rate_high` (95 % interval over sources).
    """
    flips = _flips(logits, perturbations.index(UNPERTURBED), threshold)
    names = np.array([perturbation.name for perturbation in perturbations])
    groups = group_codes(predictions)
    chosen = {name: names == name for name in dict.fromkeys(names) if name != UNPERTURBED.name}
    if set(RE_ENCODINGS) & set(chosen):
        chosen[REENCODED] = np.isin(names, RE_ENCODINGS)
    rows = [
        {
            "perturbation": name,
            "levels": int(levels.sum()),
            "images": len(predictions),
            **_share("flip_rate", flips[levels].any(axis=0), groups, seed),
        }
        for name, levels in chosen.items()
    ]
    return pd.DataFrame(rows)


def _flips(logits: FloatArray, reference: int, threshold: float) -> npt.NDArray[np.bool_]:
    """Return where the answer differs from that to a reference row of logits, shape of `logits`."""
    answers = expit(logits) >= threshold
    return np.asarray(answers != answers[reference])


def _share(name: str, hits: npt.NDArray[np.bool_], groups: Codes, seed: int) -> dict[str, float]:
    """Return the share of hits with its interval, by names of columns."""
    values = jackknife_share(hits, groups, seed=seed)
    low, high = interval(values, effective_sources(np.zeros(len(hits)), groups))
    return {name: float(values[0]), f"{name}_low": low, f"{name}_high": high}


def robustness_generators(
    predictions: pd.DataFrame,
    logits: FloatArray,
    perturbations: Sequence[PerturbationLevel],
    *,
    seed: int,
) -> pd.DataFrame:
    """Compute the AUC of each generator under each perturbation.

    A generator's images are compared with all real images under the same perturbation.

    Returns:
        One row per generator and perturbation level: `perturbation`, `level`, `generator`,
        `images` (of the generator), `auc`, `auc_low`, `auc_high` (95 % interval). Empty if there
        are no real images or no generators.
    """
    label, generator = predictions["label"].to_numpy(), predictions["generator"].to_numpy()
    groups, real = group_codes(predictions), label == REAL
    names = sorted(set(generator[label == SYNTHETIC])) if real.any() else []
    rows: list[dict[str, Any]] = []
    for name in names:
        own = (label == SYNTHETIC) & (generator == name)
        members = real | own
        sources = effective_sources(label[members], groups[members])
        for perturbation, scores in zip(perturbations, logits, strict=True):
            # The same sources as in `per_generator`, so unperturbed images have equal intervals.
            auc = jackknife_auc(label, scores, groups, among=members, seed=seed)
            low, high = interval(auc, sources)
            rows.append(
                {
                    "perturbation": perturbation.name,
                    "level": perturbation.level,
                    "generator": name or "(unnamed)",
                    "images": int(own.sum()),
                    "auc": float(auc[0]),
                    "auc_low": low,
                    "auc_high": high,
                }
            )
    return pd.DataFrame(rows)


def severity_curves(table: pd.DataFrame) -> dict[str, list[tuple[int, float]]]:
    """Convert a table of `robustness_table` to metrics with steps.

    Metrics such as `robustness/jpeg/auc` are curves over the severity: step 0 is without
    perturbation and step k is the k-th level in `PERTURBATIONS`, so that all curves start at the
    same value and can be overlaid. Metrics such as `robustness/jpeg/auc_at_50` hold the value at
    one level, by which runs can be sorted.

    Returns:
        (step, value) pairs in rising order of the step, by metric; undefined values are left out.
    """
    unperturbed = table[table["perturbation"] == UNPERTURBED.name].iloc[0]
    result: dict[str, list[tuple[int, float]]] = {}

    def add(name: str, step: int, value: float) -> None:
        if np.isfinite(value):
            result.setdefault(f"robustness/{name}", []).append((step, float(value)))

    perturbed = table.drop(index=unperturbed.name)
    for perturbation, rows in perturbed.groupby("perturbation", sort=False):
        steps = [0, *(1 + PERTURBATIONS[perturbation].levels.index(x) for x in rows["level"])]
        for name in ("auc", "auc_change", "flip_rate", *MEASURES):
            for step, value in zip(steps, [unperturbed[name], *rows[name]], strict=True):
                add(f"{perturbation}/{name}", step, value)
        for level, auc in zip(rows["level"], rows["auc"], strict=True):
            add(f"{perturbation}/auc_at_{level:g}", 0, auc)
    return result

"""What perturbations do to a detector: a row a condition, and curves over the levels.

`predictions` is the predictions table of a split, `logits` are calibrated, shape (conditions,
images), with a row for each of the conditions, of which one is `UNPERTURBED`; the threshold is the
one from validation on images as they are.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from synthdetect.datasets.labels import REAL, SYNTHETIC
from synthdetect.datasets.splits import group_codes
from synthdetect.evaluation.metrics import bootstrap_auc, interval, metrics
from synthdetect.images.perturbations import PERTURBATIONS, UNPERTURBED, Condition
from synthdetect.system.arrays import FloatArray

MEASURES = ("balanced_accuracy", "real_accuracy", "fake_accuracy", "f1", "ece")
"""What is shown of each condition besides the AUC and its change."""


def robustness_table(
    predictions: pd.DataFrame,
    logits: FloatArray,
    conditions: Sequence[Condition],
    threshold: float,
    *,
    seed: int,
) -> pd.DataFrame:
    """Metrics under each condition, with 95 % intervals by bootstrap over sources.

    Returns:
        A row a condition: `perturbation` and `level` (`none` and 0 without any), `images`; `auc`
        with `auc_low` and `auc_high`; `auc_change` from the unperturbed, with the bounds of its
        paired interval (the same sources drawn for both); and `MEASURES`.
    """
    table = _compared(predictions, logits, conditions.index(UNPERTURBED), threshold, seed)
    table.insert(0, "perturbation", [condition.perturbation for condition in conditions])
    table.insert(1, "level", [condition.level for condition in conditions])
    return table


def conditions_table(
    predictions: pd.DataFrame, logits: Mapping[str, FloatArray], threshold: float, *, seed: int
) -> pd.DataFrame:
    """The same of other ways to see the images, each compared with the first.

    Args:
        predictions: of a split.
        logits: calibrated, by condition, each of shape (images,).
        threshold: from validation.
        seed: of the bootstrap.

    Returns:
        A row a condition: `condition`, `split`, and from `images` on as `robustness_table`.
    """
    table = _compared(predictions, np.stack(list(logits.values())), 0, threshold, seed)
    table.insert(0, "condition", list(logits))
    table.insert(1, "split", predictions["split"].to_numpy()[0])
    return table


def _compared(
    predictions: pd.DataFrame, logits: FloatArray, reference: int, threshold: float, seed: int
) -> pd.DataFrame:
    """Metrics of each row of logits, and how far its AUC is from the reference row's."""
    labels, groups = predictions["label"].to_numpy(), group_codes(predictions)
    values = [metrics(labels, scores, threshold) for scores in logits]
    draws = [bootstrap_auc(labels, scores, groups, seed=seed) for scores in logits]
    rows: list[dict[str, Any]] = []
    for value, drawn in zip(values, draws, strict=True):
        low, high = interval(drawn)
        change_low, change_high = interval(drawn - draws[reference])
        rows.append(
            {
                "images": len(labels),
                "auc": value["auc"],
                "auc_low": low,
                "auc_high": high,
                "auc_change": value["auc"] - values[reference]["auc"],
                "auc_change_low": change_low,
                "auc_change_high": change_high,
                **{name: value[name] for name in MEASURES},
            }
        )
    return pd.DataFrame(rows)


def robustness_generators(
    predictions: pd.DataFrame, logits: FloatArray, conditions: Sequence[Condition], *, seed: int
) -> pd.DataFrame:
    """The AUC of each generator under each condition, against all real images under the same.

    Returns:
        A row a condition and generator: `perturbation`, `level`, `generator`, `images` of it,
        `auc`, `auc_low`, `auc_high`. Empty if there are no real images or no generators.
    """
    label, generator = predictions["label"].to_numpy(), predictions["generator"].to_numpy()
    groups, real = group_codes(predictions), label == REAL
    names = sorted(set(generator[label == SYNTHETIC])) if real.any() else []
    rows: list[dict[str, Any]] = []
    for name in names:
        own = (label == SYNTHETIC) & (generator == name)
        members = real | own
        for condition, scores in zip(conditions, logits, strict=True):
            # The draws of `per_generator`, so that both say the same of images as they are.
            draws = bootstrap_auc(label, scores, groups, among=members, seed=seed)
            low, high = interval(draws)
            rows.append(
                {
                    "perturbation": condition.perturbation,
                    "level": condition.level,
                    "generator": name or "(unnamed)",
                    "images": int(own.sum()),
                    "auc": metrics(label[members], scores[members], 0.5)["auc"],
                    "auc_low": low,
                    "auc_high": high,
                }
            )
    return pd.DataFrame(rows)


def curves(table: pd.DataFrame) -> dict[str, list[tuple[int, float]]]:
    """The table as metrics of a run: values by step.

    `robustness/jpeg/auc` and the like are curves over the severity: step 0 is without perturbation
    and step k the k-th level of `PERTURBATIONS`, so that all fall to the right from one value and
    can be laid over each other. `robustness/jpeg/auc_at_50` is one level's value, to sort runs by.

    Args:
        table: as `robustness_table` makes it.

    Returns:
        By name, (step, value) in rising order; undefined values are left out.
    """
    plain = table[table["perturbation"] == UNPERTURBED.perturbation].iloc[0]
    result: dict[str, list[tuple[int, float]]] = {}

    def add(name: str, step: int, value: float) -> None:
        if np.isfinite(value):
            result.setdefault(f"robustness/{name}", []).append((step, float(value)))

    for perturbation, rows in table.drop(index=plain.name).groupby("perturbation", sort=False):
        steps = [0, *(1 + PERTURBATIONS[perturbation].levels.index(x) for x in rows["level"])]
        for name in ("auc", "auc_change", *MEASURES):
            for step, value in zip(steps, [plain[name], *rows[name]], strict=True):
                add(f"{perturbation}/{name}", step, value)
        for level, auc in zip(rows["level"], rows["auc"], strict=True):
            add(f"{perturbation}/auc_at_{level:g}", 0, auc)
    return result

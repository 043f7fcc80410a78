"""Comparison of the results of two runs: every weight, metric and prediction.

Equal means equal in every bit. Times and system metrics are not compared.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import pandas as pd

Values: TypeAlias = "pd.Series[Any]"
"""Numbers by the position in a tensor, the epoch, or the path of the image."""

WEIGHTS, EPOCHS, CHOICES, RESULTS, PREDICTIONS = PARTS = (
    "weights", "epochs", "choices", "results", "predictions",
)  # fmt: skip
"""What is compared: the tensors of the model; each metric over the epochs; what was chosen (best
epoch, threshold, calibration); the final metrics; the logits."""

LOGITS = ("raw_logit", "logit")
"""Columns of a predictions table that are compared."""

EXACTLY = "reproduced bit for bit"
NOT_REPRODUCED = "not reproduced"

_TIMES = ("images_per_second", "seconds_per_image", "peak_mib")
_CHOSEN = ("best/epoch", "refit/epochs", "decision/")


@dataclass(frozen=True)
class RunResults:
    """The results of a run.

    Attributes:
        weights: The tensors of the model by name.
        digest: SHA-256 of the weights; of several networks, joined by commas.
        metrics: The value at each step by name of the metric.
        predictions: Predictions tables by the path of the artifact.
    """

    weights: Mapping[str, npt.NDArray[Any]] = field(default_factory=dict)
    digest: str = ""
    metrics: Mapping[str, Mapping[int, float]] = field(default_factory=dict)
    predictions: Mapping[str, pd.DataFrame] = field(default_factory=dict)


def compare_results(recorded: RunResults, rerun: RunResults) -> pd.DataFrame:
    """Compare two results, number by number.

    Weights are compared by their hashes if one side keeps no model. Metrics that only the rerun has
    are not compared, because later versions may log more.

    Returns:
        A table with a row for each tensor, metric or column of logits: its `part` (of `PARTS`) and
        `name`; its number of `values` and of `differing` ones; the `greatest` absolute difference,
        its position (`at`), and the values there (`recorded`, `rerun`). The difference is infinite
        where only one side has a value or a finite one, and nan where only hashes are known.
    """
    rows = []
    before, now = dict(_values(recorded)), dict(_values(rerun))
    has_models = bool(recorded.weights and rerun.weights)
    for part, name in dict.fromkeys([*before, *now]):
        key = part, name
        is_new_metric = key not in before and part not in (WEIGHTS, PREDICTIONS)
        if is_new_metric or (part == WEIGHTS and not has_models):
            continue
        empty = pd.Series(dtype=np.float64)
        found = _difference(before.get(key, empty), now.get(key, empty))
        rows.append({"part": part, "name": name, **found})
    if (recorded.digest or rerun.digest) and not has_models:
        rows.append(_hashes(recorded.digest, rerun.digest))
    return pd.DataFrame(rows)


def verdict(compared: pd.DataFrame, tolerance: float) -> str:
    """Return the verdict on a comparison.

    Args:
        compared: Result of `compare_results`, of one training or several.
        tolerance: Largest difference of a final metric at which results count as reproduced; 0
            demands equality of everything.

    Returns:
        `EXACTLY`, "reproduced within" the tolerance, or `NOT_REPRODUCED`.

    Raises:
        ValueError: If no weights were compared.
    """
    if WEIGHTS not in set(compared["part"]):
        raise ValueError("no weights were compared")
    if not compared["differing"].any():
        return EXACTLY
    results = compared.loc[compared["part"] == RESULTS, "greatest"]
    if tolerance and len(results) and (results <= tolerance).all():
        return f"reproduced within {tolerance:g}"
    return NOT_REPRODUCED


def summary(compared: pd.DataFrame) -> pd.DataFrame:
    """Return a table with a row for each part: `part`, `values`, `differing`, `greatest`."""
    by_part = compared.groupby("part")
    found = by_part.agg(
        values=("values", "sum"), differing=("differing", "sum"), greatest=("greatest", "max")
    )
    return found.reindex([part for part in PARTS if part in found.index]).reset_index()


def largest_first(compared: pd.DataFrame) -> pd.DataFrame:
    """Return the rows that differ, the largest difference first."""
    differing = compared[compared["differing"] > 0]
    return differing.sort_values(
        ["greatest", "differing"], ascending=False, kind="stable", ignore_index=True
    )


def _values(results: RunResults) -> Iterator[tuple[tuple[str, str], Values]]:
    """Yield all numbers by part and name."""
    for name, tensor in results.weights.items():
        yield (WEIGHTS, name), pd.Series(np.ascontiguousarray(tensor).reshape(-1))
    for name, steps in results.metrics.items():
        if not name.startswith("system/") and name.rpartition("/")[2] not in _TIMES:
            yield (_part(name, max(steps)), name), pd.Series(steps, dtype=np.float64)
    for name, table in results.predictions.items():
        for column in LOGITS:
            if column in table:
                yield (PREDICTIONS, f"{name} {column}"), table.set_index("path")[column]


def _part(name: str, last_step: int) -> str:
    """Return the part of a metric: epochs are logged at steps from 1 on, everything else at 0."""
    if last_step:
        return EPOCHS
    return CHOICES if name.startswith(_CHOSEN) else RESULTS


def _difference(before: Values, now: Values) -> dict[str, Any]:
    shared, lone = before.index, before.index[:0]
    if not before.index.equals(now.index):
        shared = before.index.intersection(now.index)
        lone = before.index.symmetric_difference(now.index)
    here, there = before.loc[shared].to_numpy(), now.loc[shared].to_numpy()
    differs = _bits(here) != _bits(there)
    found: dict[str, Any] = {
        "values": len(shared) + len(lone),
        "differing": int(differs.sum()) + len(lone),
        "greatest": 0.0, "at": "", "recorded": math.nan, "rerun": math.nan,
    }  # fmt: skip
    if len(lone):
        at = lone[0]
        sides = {"recorded": before.get(at, math.nan), "rerun": now.get(at, math.nan)}
        return found | {"greatest": math.inf, "at": str(at), **sides}
    if differs.any():
        places = np.flatnonzero(differs)
        with np.errstate(invalid="ignore"):
            delta = np.abs(there[places].astype(np.float64) - here[places].astype(np.float64))
        delta[np.isnan(delta)] = np.inf
        at = places[delta.argmax()]
        found |= {"greatest": float(delta.max()), "at": str(shared[at]),
                  "recorded": float(here[at]), "rerun": float(there[at])}  # fmt: skip
    return found


def _bits(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """View numbers as integers, which are equal only if every bit is."""
    return np.ascontiguousarray(values).view(f"u{values.dtype.itemsize}")


def _hashes(before: str, now: str) -> dict[str, Any]:
    return {
        "part": WEIGHTS, "name": "SHA-256 of all", "values": 1, "differing": int(before != now),
        "greatest": math.nan if before != now else 0.0, "at": "", "recorded": math.nan,
        "rerun": math.nan,
    }  # fmt: skip

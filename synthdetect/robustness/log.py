"""Logging of metrics on perturbed and equalised images: tables, curves and figures."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from synthdetect.evaluation.predictions import Evaluation
from synthdetect.images.perturbations import PerturbationLevel
from synthdetect.robustness.figures import (
    robustness_figure,
    robustness_generators_figure,
)
from synthdetect.robustness.tables import (
    MEASURES,
    REENCODED,
    flip_table,
    robustness_generators,
    robustness_table,
    severity_curves,
)
from synthdetect.system.arrays import FloatArray
from synthdetect.tracking.run import Dataset, Run


def log_robustness(
    run: Run,
    evaluation: Evaluation,
    logits: FloatArray,
    perturbations: Sequence[PerturbationLevel],
    threshold: float,
    *,
    seed: int,
    name: str,
    dataset: Dataset | None = None,
    model_id: str | None = None,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Log the metrics of one split under perturbations.

    Args:
        run: run to log to.
        evaluation: evaluation of the split's unperturbed images.
        logits: calibrated logits, shape (perturbations, images).
        perturbations: perturbation levels: `UNPERTURBED` and at least one other.
        threshold: threshold from validation.
        seed: seed of `intervals`.
        name: file name of the tables, without its suffix.
        dataset: dataset that the metrics are linked to.
        model_id: logged model that the metrics are linked to.

    Returns:
        The tables of `robustness_table` and of `flip_table`.
    """
    split, predictions = evaluation.split, evaluation.predictions
    table = robustness_table(predictions, logits, perturbations, threshold, seed=seed)
    by_step: dict[int, dict[str, float]] = {}
    for metric, points in severity_curves(table).items():
        for step, value in points:
            by_step.setdefault(step, {})[f"{split}/{metric}"] = value
    for step, values in by_step.items():
        run.log_metrics(values, step, dataset=dataset, model_id=model_id)
    run.log_table(_readable(table, split), f"evaluation/{name}.csv")
    run.log_figure(robustness_figure(table, split), f"figures/{split}/robustness.png")
    flips = flip_table(predictions, logits, perturbations, threshold, seed=seed)
    run.log_table(flips.assign(split=split), f"evaluation/{name}_flips.csv")
    for rate in flips.loc[flips["perturbation"] == REENCODED, "flip_rate"]:
        values = {f"{split}/robustness/any_re-encoding/flip_rate": float(rate)}
        run.log_metrics(values, dataset=dataset, model_id=model_id)
    generators = robustness_generators(predictions, logits, perturbations, seed=seed)
    if len(generators):
        run.log_table(_readable(generators, split), f"evaluation/{name}_generators.csv")
        figure = robustness_generators_figure(generators, split)
        run.log_figure(figure, f"figures/{split}/robustness_generators.png")
    return table, flips


def log_equalised(
    run: Run,
    compared: pd.DataFrame,
    *,
    dataset: Dataset | None = None,
    model_id: str | None = None,
) -> None:
    """Log the last row of `equalised_table` as metrics `<split>/<condition>/<metric>`."""
    row = compared.iloc[-1]
    shown = ("auc", "auc_change", "flip_rate", *MEASURES)
    names = [name for name in shown if np.isfinite(row[name])]
    values = {f"{row['split']}/{row['condition']}/{name}": float(row[name]) for name in names}
    run.log_metrics(values, dataset=dataset, model_id=model_id)


def _readable(table: pd.DataFrame, split: str) -> pd.DataFrame:
    """Add the split as a column, and format levels without trailing zeros."""
    table = table.assign(level=table["level"].map("{:g}".format))
    table.insert(0, "split", split)
    return table

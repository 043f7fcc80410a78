"""What a detector is worth under other conditions: tables, curves and figures in a run."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from mlflow.data.dataset import Dataset

from synthdetect.evaluation.predictions import Evaluation
from synthdetect.images.perturbations import Condition
from synthdetect.robustness.figures import (
    robustness_figure,
    robustness_generators_figure,
)
from synthdetect.robustness.tables import (
    MEASURES,
    curves,
    robustness_generators,
    robustness_table,
)
from synthdetect.system.arrays import FloatArray
from synthdetect.tracking.run import Run


def log_robustness(
    run: Run,
    evaluation: Evaluation,
    logits: FloatArray,
    conditions: Sequence[Condition],
    threshold: float,
    *,
    seed: int,
    name: str,
    dataset: Dataset | None = None,
    model_id: str | None = None,
) -> pd.DataFrame:
    """Log what perturbations do to a detector on one split.

    Args:
        run: to log to.
        evaluation: of the split.
        logits: calibrated, shape (conditions, images).
        conditions: with `UNPERTURBED` and at least one other.
        threshold: from validation.
        seed: of the bootstrap.
        name: of the tables.
        dataset: the images, to bind the metrics to.
        model_id: the logged model, likewise.

    Returns:
        As `robustness_table`.
    """
    split, predictions = evaluation.split, evaluation.predictions
    table = robustness_table(predictions, logits, conditions, threshold, seed=seed)
    by_step: dict[int, dict[str, float]] = {}
    for metric, points in curves(table).items():
        for step, value in points:
            by_step.setdefault(step, {})[f"{split}/{metric}"] = value
    for step, values in by_step.items():
        run.log_metrics(values, step, dataset=dataset, model_id=model_id)
    run.log_table(_readable(table, split), f"evaluation/{name}.csv")
    run.log_figure(robustness_figure(table, split), f"figures/{split}/robustness.png")
    generators = robustness_generators(predictions, logits, conditions, seed=seed)
    if len(generators):
        run.log_table(_readable(generators, split), f"evaluation/{name}_generators.csv")
        figure = robustness_generators_figure(generators, split)
        run.log_figure(figure, f"figures/{split}/robustness_generators.png")
    return table


def log_condition(
    run: Run,
    compared: pd.DataFrame,
    *,
    dataset: Dataset | None = None,
    model_id: str | None = None,
) -> None:
    """Log the last row of `conditions_table` as metrics `<split>/<condition>/auc` and the like."""
    row = compared.iloc[-1]
    names = [name for name in ("auc", "auc_change", *MEASURES) if np.isfinite(row[name])]
    values = {f"{row['split']}/{row['condition']}/{name}": float(row[name]) for name in names}
    run.log_metrics(values, dataset=dataset, model_id=model_id)


def _readable(table: pd.DataFrame, split: str) -> pd.DataFrame:
    """With the split, and levels as one writes them: 75 and 0.5."""
    table = table.assign(level=table["level"].map("{:g}".format))
    table.insert(0, "split", split)
    return table

"""Reads the results that runs have logged, as tables."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath

import pandas as pd
from mlflow.exceptions import MlflowException

from synthdetect.tracking.availability import is_absent
from synthdetect.tracking.queries import artifact_paths, existing, metric_history, read_table

_OF_GENERATORS = ["split", "generator", "images", "auc", "auc_low", "auc_high"]


@dataclass(frozen=True)
class Results:
    """The evaluations of a run, of all splits together.

    Attributes:
        metrics: Columns `split`, `metric`, `value`, `low` and `high` (95 % interval).
        generators: Columns `split`, `generator`, `images`, `auc`, `auc_low`, `auc_high` and further
            metrics; as of `synthdetect.evaluation.predictions.per_generator`.
    """

    metrics: pd.DataFrame
    generators: pd.DataFrame


def read_results(run_id: str) -> Results:
    """Read the evaluations of a run; the tables are empty if it has none, or does not exist."""
    splits = _splits(run_id)
    metrics = _stacked(run_id, {f"evaluation/{s}.csv": s for s in splits}, "metric")
    generators = _stacked(
        run_id, {f"evaluation/{s}_generators.csv": s for s in splits}, "generator"
    )
    return Results(
        metrics.reindex(columns=["split", "metric", "value", "low", "high"]),
        generators if len(generators) else generators.reindex(columns=_OF_GENERATORS),
    )


def read_predictions(run_id: str) -> pd.DataFrame:
    """Read the predictions of a run, those of all its splits; empty if it has none."""
    tables = [read_table(run_id, f"predictions/{split}.csv") for split in _splits(run_id)]
    found = [table for table in tables if table is not None]
    return pd.concat(found, ignore_index=True) if found else pd.DataFrame()


def read_history(run_id: str) -> pd.DataFrame:
    """Read the metrics of a training, with a row for each epoch, which is the name of the row."""
    names = [
        name
        for name in sorted(existing(run_id).metrics)
        if "/" not in name or name.startswith(("train/", "val/"))
    ]
    # An epoch is a step from 1 on; what is logged once is at step 0.
    found = pd.DataFrame({name: metric_history(run_id, name) for name in names}).sort_index()
    return found.loc[found.index > 0].dropna(axis=1, how="all").rename_axis("epoch")


def read_robustness(run_id: str) -> pd.DataFrame:
    """Read the metrics under perturbations of all splits of a run; empty if it has none."""
    files = {f"evaluation/{split}_robustness.csv": "" for split in _splits(run_id)}
    return _stacked(run_id, {**files, "evaluation/robustness.csv": ""}, "split", "perturbation")


def _splits(run_id: str) -> list[str]:
    """The splits that a run has scored, each with a table of predictions."""
    try:
        paths = map(PurePosixPath, artifact_paths(run_id, "predictions"))
    except MlflowException as error:
        if not is_absent(error):
            raise
        return []
    return [path.stem for path in paths if path.suffix == ".csv"]


def _stacked(run_id: str, files: Mapping[str, str], *text: str) -> pd.DataFrame:
    """Stack tables; all columns but those of text are numbers, nan where they are undefined.

    Args:
        run_id: The run.
        files: The split of each table, by its path; empty if the table has it.
        text: The columns of text.
    """
    found = []
    for path, split in files.items():
        table = read_table(run_id, path)
        if table is None:
            continue
        numbers = [column for column in table if column not in text]
        table[numbers] = table[numbers].apply(pd.to_numeric, errors="coerce")
        if split:
            table.insert(0, "split", split)
        found.append(table)
    return pd.concat(found, ignore_index=True) if found else pd.DataFrame()

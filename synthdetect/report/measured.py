"""What was measured of a detector on one split of some data, from an evaluation or a record."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import PurePath

import pandas as pd

from synthdetect.evaluation.predictions import Evaluation, sampling_unit
from synthdetect.report.record import Artifacts
from synthdetect.report.results import read_splits
from synthdetect.tracking.records import RunRecord

READ_FOR_CARDS = ("evaluation/", "predictions/")
"""Folders of the artifacts that `measured_in` reads."""


@dataclass(frozen=True)
class Measured:
    """The results of a detector on one split.

    Attributes:
        data: Name of the data, without the folders that they are in.
        split: Name of the split.
        overall: Columns `metric`, `value`, `low`, `high`; numbers.
        generators: Columns `generator`, `images`, `auc`, `auc_low`, `auc_high` with a row for each
            generator; empty if there are none.
        images: Number of images; 0 if it is not known.
        sources: Number of photographs that they come from; 0 if they are not named.
        robustness: The table of perturbations and levels; empty if none were tried.
        run_id: Id of the run.
    """

    data: str
    split: str
    overall: pd.DataFrame
    generators: pd.DataFrame
    images: int = 0
    sources: int = 0
    robustness: pd.DataFrame = field(default_factory=pd.DataFrame)
    run_id: str = ""

    def row(self, metric: str) -> list[float] | None:
        """Return value and bounds of a metric; None if it was not measured or is undefined."""
        rows = self.overall[self.overall["metric"] == metric]
        if rows.empty or rows["value"].isna().all():
            return None
        return [float(v) for v in rows.iloc[0][["value", "low", "high"]]]


def name_of_data(data: str) -> str:
    """Return the name of data without the folders that they are in."""
    return PurePath(data).name or data


def measured_now(
    evaluations: Mapping[str, Evaluation], data: str, run_id: str
) -> Iterator[Measured]:
    """Yield what a run has just measured, by split."""
    for split, evaluation in evaluations.items():
        rows = evaluation.predictions
        yield Measured(
            name_of_data(data),
            split,
            evaluation.overall,
            evaluation.generators,
            len(rows),
            rows["source_id"].nunique() if evaluation.unit == "photograph" else 0,
            run_id=run_id,
        )


def measured_in(record: RunRecord) -> Iterator[Measured]:
    """Yield what a recorded run has measured, by split."""
    artifacts = Artifacts(record)
    for split, table in read_splits(artifacts).items():
        predictions = artifacts.table(f"predictions/{split}.csv", ("path", "source_id"))
        named = predictions is not None and sampling_unit(predictions) == "photograph"
        yield Measured(
            name_of_data(record.tags.get("synthdetect.data", "")),
            split,
            table.apply(pd.to_numeric, errors="coerce").reset_index(),
            _numbers(artifacts.table(f"evaluation/{split}_generators.csv"), "generator"),
            0 if predictions is None else len(predictions),
            predictions["source_id"].nunique() if named and predictions is not None else 0,
            _perturbed(artifacts, split),
            record.id,
        )


def _perturbed(artifacts: Artifacts, split: str) -> pd.DataFrame:
    """Return the results under perturbations; a run that perturbs one split names the file so."""
    own, only = (
        artifacts.table(f"evaluation/{name}.csv") for name in (f"{split}_robustness", "robustness")
    )
    if own is None and only is not None and "split" in only:
        own = only[only["split"] == split]
    return _numbers(None if own is None else own.drop(columns="split"), "perturbation")


def _numbers(table: pd.DataFrame | None, name: str) -> pd.DataFrame:
    """Return a table whose columns are numbers but for `name`; empty if it is not as expected."""
    if table is None or not {name, "auc", "auc_low", "auc_high"} <= set(table):
        return pd.DataFrame()
    others = table.drop(columns=name).apply(pd.to_numeric, errors="coerce")
    return others.assign(**{name: table[name]})

"""An open MLflow run, and what is logged to it."""

import json
import logging
import os
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import pandas as pd
from matplotlib.figure import Figure
from mlflow.data.dataset import Dataset as Dataset
from mlflow.data.pandas_dataset import from_pandas
from mlflow.entities import DatasetInput, InputTag, LoggedModelInput, Metric, Param, RunTag
from mlflow.tracking import MlflowClient
from mlflow.utils.mlflow_tags import MLFLOW_DATASET_CONTEXT, MLFLOW_LOGGED_ARTIFACTS
from PIL import Image

from synthdetect.datasets.manifest import Manifest
from synthdetect.evaluation.summary import inert
from synthdetect.system.console import console
from synthdetect.system.redaction import without_secrets
from synthdetect.tracking import addresses, availability
from synthdetect.tracking.availability import (
    PAUSE,
    Result,
    is_away,
    reason_of,
    require_answer,
    retrying,
    warn_away,
)
from synthdetect.tracking.sources import source_of

_PARAM_LIMIT = 6000  # characters of a parameter
_BATCH_LIMIT = 100  # parameters or tags that MLflow takes in one request
_BACKOFF = 20  # a server that hangs may take a twentieth of a training's time

# MLflow prints a line a run about its system metrics, and a bar for every artifact.
logging.getLogger("mlflow.system_metrics").setLevel(logging.ERROR)
os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
# `synthdetect.tracking.availability` reports a store that is away.
logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)
logging.getLogger("urllib3.connectionpool").setLevel(logging.ERROR)
# This advice does not apply: no column has gaps, and a local path has one meaning.
warnings.filterwarnings("ignore", message="Hint: Inferred schema contains integer column")
warnings.filterwarnings("ignore", message="The specified dataset source can be interpreted")

History: TypeAlias = Sequence[Mapping[str, float]]
"""Metrics of every epoch of a training, by name."""


class Run:
    """An open run. Everything is logged to it by its id, from any thread.

    While the tracking store is away, `log_progress` goes on without it and logs the missed epochs
    later. All other methods wait, as described at `retry`.

    Args:
        run_id: Id of the run.
        resumed: Whether the run may have metrics already. These are not logged twice.
        parent: The run that this one is nested under.

    Attributes:
        id: Id of the run.
        client: A client of the tracking store whose calls wait, as described at `retry`.
        end_tags: Tags to set when the run ends.
        when_finished: Functions to call once the run has ended as FINISHED.
        pages: How to look at it in the UI: commands and addresses by a word for each.
    """

    def __init__(self, run_id: str, *, resumed: bool = False, parent: "Run | None" = None) -> None:
        self.id = run_id
        self.client = retrying(MlflowClient(), self.retry)
        self.end_tags: dict[str, str] = {}
        self.when_finished: list[Callable[[], None]] = []
        self.pages: dict[str, str] = {}
        self._root: str = parent._root if parent else run_id
        self._store = MlflowClient()
        self._resumed = resumed
        self._params: set[str] | None = None
        self._known: dict[str, set[tuple[int, float]]] = {}
        self._times: dict[int, int] = {}  # of epochs, by step, in milliseconds since 1970
        self._missed: dict[int, tuple[History, Mapping[str, Dataset]]] = {}  # by `after`
        self._next_look = 0.0

    @property
    def experiment_id(self) -> str:
        """Id of the experiment that the run belongs to."""
        return str(self.client.get_run(self.id).info.experiment_id)

    def print_pages(self) -> None:
        """Print the id of the run, and how to look at it in MLflow's UI."""
        for word, page in {"run": self.id, **self.pages}.items():
            console.print(f"{word:<12} {page}")

    def retry(self, action: Callable[[], Result]) -> Result:
        """Call a function that needs the store, again and again while the store is away.

        Epochs that were missed are logged first.

        Args:
            action: The function. It may be called several times, so it must be idempotent.

        Returns:
            What the function returns.

        Raises:
            StoreAway: If the store is away for longer than `SYNTHDETECT_PATIENCE` allows.
        """
        advice = (
            "When it is back, repeat the command to go on with what is on disk and to log "
            f"everything; if the command has the option --resume, with --resume {self._root}."
        )
        return availability.retry(lambda: self.attempt(action), advice)

    def attempt(self, action: Callable[[], Result]) -> Result:
        """Do what `retry` does, but fail at once if the store is away."""
        self._log_missed()
        return action()

    def log_params(self, params: Mapping[str, Any]) -> None:
        """Log parameters, except those that the run has: MLflow does not let them change."""
        if self._params is None:
            self._params = set(self.client.get_run(self.id).data.params)
        new = {k: without_secrets(str(v)) for k, v in params.items() if k not in self._params}
        entries = [Param(name, value[:_PARAM_LIMIT]) for name, value in new.items()]
        self.retry(lambda: self._send(params=entries))
        self._params.update(new)

    def log_metrics(
        self,
        metrics: Mapping[str, float],
        step: int = 0,
        *,
        dataset: Dataset | None = None,
        model_id: str | None = None,
    ) -> None:
        """Log metrics, except those that a resumed run has with the same step and value.

        Args:
            metrics: Values by name.
            step: Step of all of them.
            dataset: The images that they were measured on.
            model_id: Id of the logged model that they were measured of.
        """
        time = _now()
        entries = [
            _metric(name, value, step, time, dataset, model_id) for name, value in metrics.items()
        ]
        self.retry(lambda: self._log_new(entries))

    def log_history(
        self, history: History, datasets: Mapping[str, Dataset], *, after: int = 0
    ) -> None:
        """Log the epochs that the run does not have yet, each metric once a step.

        Args:
            history: Metrics of every epoch so far. The first epoch is step `after` + 1.
            datasets: What a metric was measured on, by the first part of its name (train or val).
            after: Steps that the run has from earlier trainings.
        """
        self.retry(lambda: self._log_absent(history, datasets, after))

    def log_progress(
        self, history: History, datasets: Mapping[str, Dataset], *, after: int = 0
    ) -> None:
        """Log the last epoch, and before it those that were missed while the store was away.

        This never waits for a store that is away. The epoch then counts as missed. It is logged
        with a later call, or by the next method that waits for the store.

        Args:
            history: Metrics of every epoch so far. The first epoch is step `after` + 1.
            datasets: What a metric was measured on, by the first part of its name (train or val).
            after: Steps that the run has from earlier trainings.
        """
        step = after + len(history)
        self._times[step] = _now()
        was_behind = bool(self._missed)
        if was_behind:
            self._missed[after] = history, datasets
        began = time.monotonic()
        if was_behind and began < self._next_look:
            return
        try:
            if was_behind:
                self._log_missed()
            else:
                self._log_new(self._epoch(history[-1], step, datasets))
        except Exception as error:
            if not is_away(error):
                raise
            if not was_behind:
                warn_away(error, "The training goes on; its epochs are logged later.")
            self._missed[after] = history, datasets
            ended = time.monotonic()
            self._next_look = ended + max(PAUSE, _BACKOFF * (ended - began))

    def _log_missed(self) -> None:
        """Log the epochs that were missed, if there are any.

        Raises:
            MlflowException: If the store is still away, or refuses.
        """
        if not self._missed:
            return
        require_answer()
        for after, (history, datasets) in list(self._missed.items()):
            self._log_absent(history, datasets, after)
            del self._missed[after]
        console.print("The tracking store is back and has every epoch.")

    def _log_absent(self, history: History, datasets: Mapping[str, Dataset], after: int) -> None:
        """Log the metrics of a history that the run does not have, without waiting."""
        steps = {
            name: {point.step for point in self._store.get_metric_history(self.id, name)}
            for name in sorted({epoch_metric(name) for record in history for name in record})
        }
        entries = [
            metric
            for step, record in enumerate(history, after + 1)
            for metric in self._epoch(record, step, datasets)
            if step not in steps[metric.key]
        ]
        self._send(metrics=entries)

    def _epoch(
        self, record: Mapping[str, float], step: int, datasets: Mapping[str, Dataset]
    ) -> list[Metric]:
        # A request that seemed to fail may have arrived. With the same time, MLflow takes what is
        # sent once more for the same point.
        time = self._times.setdefault(step, _now())
        return [
            _metric(epoch_metric(name), value, step, time, datasets.get(name.split("/")[0]))
            for name, value in record.items()
        ]

    def _log_new(self, metrics: Sequence[Metric]) -> None:
        """Log metrics that a resumed run does not have, without waiting."""
        if self._resumed:
            metrics = [m for m in metrics if (m.step, m.value) not in self._points(m.key)]
        self._send(metrics=metrics)

    def _points(self, name: str) -> set[tuple[int, float]]:
        if name not in self._known:
            points = self._store.get_metric_history(self.id, name)
            self._known[name] = {(point.step, point.value) for point in points}
        return self._known[name]

    def _send(self, **entries: Sequence[Metric] | Sequence[Param] | Sequence[RunTag]) -> None:
        """Log metrics, params or tags, without waiting."""
        for kind, values in entries.items():
            for begin in range(0, len(values), _BATCH_LIMIT):
                part: dict[str, Any] = {kind: list(values[begin : begin + _BATCH_LIMIT])}
                self._store.log_batch(self.id, **part)

    def set_tags(self, tags: Mapping[str, str]) -> None:
        """Set tags."""
        self.retry(lambda: self.send_tags(tags))

    def send_tags(self, tags: Mapping[str, str]) -> None:
        """Set tags, but fail at once if the store is away."""
        self._send(tags=[RunTag(name, without_secrets(value)) for name, value in tags.items()])

    def log_figure(self, figure: Figure, path: str) -> None:
        """Log a figure as an image among the run's artifacts."""
        self.client.log_figure(self.id, figure, path, save_kwargs={"bbox_inches": "tight"})

    def log_image(self, image: Image.Image, path: str) -> None:
        """Log an image among the run's artifacts, under its name.

        MLflow's image charts (`key` and `step`) give it a random name, and the UI shows them below
        all parameters of the run.
        """
        self.client.log_image(self.id, image, path)

    def log_table(self, table: pd.DataFrame, path: str) -> None:
        """Log a table as CSV, which the UI shows as a table."""
        self.client.log_text(self.id, table.to_csv(index=False), path)

    def log_rows(self, table: pd.DataFrame, path: str) -> None:
        """Log a table as JSON, so that the UI can compare it with those of other runs.

        `MlflowClient.log_table` writes the same file, but appends to one that exists.
        """
        text = table.to_json(orient="split", index=False, date_format="iso")
        self.client.log_text(self.id, text, path)
        tags = self.client.get_run(self.id).data.tags
        listed = json.loads(tags.get(MLFLOW_LOGGED_ARTIFACTS, "[]"))
        entry = {"path": path, "type": "table"}
        if entry not in listed:
            self.set_tags({MLFLOW_LOGGED_ARTIFACTS: json.dumps([*listed, entry])})

    def log_json(self, value: Mapping[str, Any], path: str) -> None:
        """Log a mapping as a JSON artifact."""
        self.client.log_dict(self.id, dict(value), path)

    def log_file(self, file: Path, folder: str) -> None:
        """Log a file as an artifact in a folder."""
        self.client.log_artifact(self.id, str(file), folder)

    def try_to_log_files(self, files: Sequence[Path], folder: str) -> None:
        """Log files as `log_file` does, if that is possible at once; else print why not.

        This raises no exception, so that it can be called while another one is handled.
        """
        try:
            require_answer()
            for file in files:
                self._store.log_artifact(self.id, str(file), folder)
        except Exception as error:
            names = ", ".join(map(str, files))
            console.print(
                f"These files could not be added to the run's artifacts ({reason_of(error)}): "
                f"{names}",
                style="bold yellow",
            )

    def log_manifest(self, manifest: Manifest) -> dict[str, Dataset]:
        """Log the data: a dataset with a digest for each split, and a table of the counts.

        Returns:
            The datasets by split, to which metrics can be bound.
        """
        contexts = {"train": "training", "val": "validation", "test": "test"}
        source = str(manifest.root) if manifest.name != "sample" else "synthdetect/sample"
        inputs = self.client.get_run(self.id).inputs
        known = {i.dataset.name for i in inputs.dataset_inputs} if inputs else set()
        datasets: dict[str, Dataset] = {}
        new = []
        for split in manifest.splits:
            part = manifest.split(split)
            dataset = from_pandas(
                part.table.astype({"label": "int64"}),
                source=source_of(source),
                targets="label",
                name=f"{Path(manifest.name).name}-{split}",
                digest=part.digest()[:32],
            )
            datasets[split] = dataset
            if dataset.name not in known:
                context = InputTag(MLFLOW_DATASET_CONTEXT, contexts.get(split, "evaluation"))
                new.append(DatasetInput(dataset._to_mlflow_entity(), [context]))
        if new:
            self.client.log_inputs(self.id, datasets=new)
        counts = manifest.counts()
        self.log_table(counts, "data/counts.csv")
        sizes = counts.groupby(["split", "label"])["images"].sum()
        self.log_metrics({f"data/{s}/{label}": float(n) for (s, label), n in sizes.items()})
        return datasets

    def log_model_input(self, model_id: str) -> None:
        """Log that the run uses a model that another run has logged."""
        self.client.log_inputs(self.id, models=[LoggedModelInput(model_id)])

    def describe_results(self, answer: str, details: str, picture: str = "") -> None:
        """Set the description: the answer in words, a picture, and the details.

        Args:
            answer: Plain text; may be empty.
            details: Markdown.
            picture: Path of a figure among the artifacts of the run; empty for none.
        """
        shown = f"![{picture}]({addresses.artifact(self.id, picture)})" if picture else ""
        self.describe("\n\n".join(filter(None, (inert(answer), shown, details))))

    def describe(self, markdown: str) -> None:
        """Set the description that the UI shows on the run's page."""
        self.set_tags({"mlflow.note.content": markdown})


def epoch_metric(name: str) -> str:
    """Return the name under which a metric of an epoch is logged.

    The UI groups metrics by what stands before a slash, and shows those without one first.
    """
    return name if "/" in name else f"train/{name}"


def _now() -> int:
    return int(time.time() * 1000)


def _metric(
    name: str, value: float, step: int, time: int,
    dataset: Dataset | None = None, model_id: str | None = None,
) -> Metric:  # fmt: skip
    return Metric(
        name, float(value), time, step, model_id=model_id,
        dataset_name=dataset.name if dataset else None,
        dataset_digest=dataset.digest if dataset else None,
    )  # fmt: skip

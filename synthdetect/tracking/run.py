"""One MLflow run: opened, filled and closed truthfully.

The status is FINISHED, FAILED for an error, KILLED for an interrupt. Under `mlflow run` the run
that MLflow opened is used; with `resume` an earlier one goes on.
"""

import json
import logging
import os
import platform
import posixpath
import signal
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeAlias
from uuid import uuid4

import mlflow
import pandas as pd
from matplotlib.figure import Figure
from mlflow.data.dataset import Dataset
from mlflow.data.pandas_dataset import from_pandas
from mlflow.entities import DatasetInput, InputTag, LoggedModelInput, Metric, Param, RunTag
from mlflow.entities import Run as MlflowRun
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient
from mlflow.tracking.fluent import (
    ActiveRun,
    _active_run_stack,
    _get_experiment_id,
    run_id_to_system_metrics_monitor,
)
from mlflow.utils.mlflow_tags import MLFLOW_DATASET_CONTEXT, MLFLOW_LOGGED_ARTIFACTS
from PIL import Image

from synthdetect import __version__
from synthdetect.datasets.manifest import Manifest
from synthdetect.system.console import console
from synthdetect.system.errors import UserError
from synthdetect.system.processes import is_another_alive, is_gone, this_process
from synthdetect.system.redaction import without_secrets
from synthdetect.tracking import availability
from synthdetect.tracking.availability import (
    PAUSE,
    Result,
    StoreAway,
    answers,
    is_absent,
    is_away,
    reason_of,
    require_answer,
    retrying,
    warn_away,
)
from synthdetect.tracking.store import make_store

KIND = "synthdetect.kind"
"""Tag that says which command made a run."""

MANIFEST = "data/manifest.csv"
"""Artifact of a training run: its images, with their splits."""

TARGET = "data/target.csv"
"""Artifact of a training run: the unlabelled images that it adapts to, if there are any."""

FOLD = "synthdetect.fold"
"""Tag of a cross-validation's child run: its fold, or `refit`."""

WEIGHTS = "synthdetect.weights_sha256"
"""Tag of a training that logs no model: SHA-256 of its weights, of several separated by commas."""

NOT_BEGUN = "synthdetect.not_begun"
"""Tag of a run that was interrupted before it had recorded anything."""

PROCESS = "synthdetect.process"
"""Tag that says which process has opened a run, or gone on with it, last."""

_OPENING = "synthdetect.opening"

_EXPERIMENT_KIND = "mlflow.experimentKind"
_TEXT = (
    "path",
    "generator",
    "category",
    "source_id",
    "held_out",
)  # whatever it looks like
_PARAM_LIMIT = 6000
_BACKOFF = 20  # a server that hangs may take a twentieth of a training's time
_BATCH_LIMIT = 100  # parameters or tags that MLflow takes in one request
_PACKAGES = (
    "mlflow",
    "torch",
    "torchvision",
    "numpy",
    "pandas",
    "pillow",
    "scikit-learn",
    "optuna",
)

# One line a run that says nothing, and a bar for every file of some kilobytes.
logging.getLogger("mlflow.system_metrics").setLevel(logging.ERROR)
# `synthdetect.tracking.availability` reports a store that is away.
logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)
logging.getLogger("urllib3.connectionpool").setLevel(logging.ERROR)
# Advice that does not apply: no column has gaps, and a local path is one either way.
warnings.filterwarnings("ignore", message="Hint: Inferred schema contains integer column")
warnings.filterwarnings("ignore", message="The specified dataset source can be interpreted")
os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")


History: TypeAlias = Sequence[Mapping[str, float]]
"""Metrics of every epoch of a training, by name."""


class Stopped(Exception):
    """Ended early on purpose: the run is KILLED, and a tag says why."""


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
    """

    def __init__(self, run_id: str, *, resumed: bool = False, parent: "Run | None" = None) -> None:
        self.id = run_id
        self.client = retrying(MlflowClient(), self.retry)
        self.end_tags: dict[str, str] = {}
        self.when_finished: list[Callable[[], None]] = []
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
        """The experiment the run belongs to."""
        return str(self.client.get_run(self.id).info.experiment_id)

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
            for name in sorted({name for record in history for name in record})
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
            _metric(name, value, step, time, datasets.get(name.split("/")[0]))
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
        self.retry(lambda: self._set_tags(tags))

    def _set_tags(self, tags: Mapping[str, str]) -> None:
        self._send(tags=[RunTag(name, without_secrets(value)) for name, value in tags.items()])

    def log_figure(self, figure: Figure, path: str) -> None:
        """Log a figure as a picture under the run's artifacts."""
        self.client.log_figure(self.id, figure, path, save_kwargs={"bbox_inches": "tight"})

    def log_image(self, image: Image.Image, path: str) -> None:
        """Log a picture under the run's artifacts, where the UI shows it by its name.

        MLflow's image charts (`key` and `step`) would keep it under a random name, and the UI draws
        them beneath all parameters of the run, which leaves no room for the picture.
        """
        self.client.log_image(self.id, image, path)

    def log_table(self, table: pd.DataFrame, path: str) -> None:
        """Log a table as CSV, which the UI shows as a table."""
        self.client.log_text(self.id, table.to_csv(index=False), path)

    def read_table(self, run_id: str, path: str) -> pd.DataFrame | None:
        """A CSV among any run's artifacts, or None where it has none."""
        with tempfile.TemporaryDirectory() as folder:
            file = fetch(self.client, run_id, path, folder)
            if file is None:
                return None
            return pd.read_csv(file, keep_default_na=False, dtype=dict.fromkeys(_TEXT, str))

    def metric(self, run_id: str, name: str) -> float:
        """The last value of any run's metric."""
        return float(self.client.get_run(run_id).data.metrics[name])

    def log_rows(self, table: pd.DataFrame, path: str) -> None:
        """Log a table as JSON, which the UI lays beside other runs' in its table view.

        As `MlflowClient.log_table` does, but that one adds the rows to those that are there.
        """
        text = table.to_json(orient="split", index=False, date_format="iso")
        self.client.log_text(self.id, text, path)
        tags = self.client.get_run(self.id).data.tags
        listed = json.loads(tags.get(MLFLOW_LOGGED_ARTIFACTS, "[]"))
        entry = {"path": path, "type": "table"}
        if entry not in listed:
            self.set_tags({MLFLOW_LOGGED_ARTIFACTS: json.dumps([*listed, entry])})

    def log_json(self, value: Mapping[str, Any], path: str) -> None:
        """Log a JSON artifact."""
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
        """Record the data: a dataset a split with its digest, and the counts as a table.

        Returns:
            The datasets by split, to bind metrics to.
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
                source=source,
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
        """Record that the run is about a model that another run has logged."""
        self.client.log_inputs(self.id, models=[LoggedModelInput(model_id)])

    def describe(self, markdown: str) -> None:
        """Set the description that the UI shows on the run's page."""
        self.set_tags({"mlflow.note.content": markdown})


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


@contextmanager
def open_run(
    name: str, *, kind: str, tags: Mapping[str, str], resume: str = "", parent: Run | None = None
) -> Iterator[Run]:
    """Open a run, and end it with the status that is true.

    The status is FINISHED, FAILED after an error, or KILLED after an interrupt. If it cannot be
    set because the store is away, the run stays RUNNING until a later process sees that this one
    is gone.

    Args:
        name: Name of a new run. Under `mlflow run`, the run keeps the name that MLflow gave it.
        kind: The command, for the tag `synthdetect.kind`.
        tags: Further tags.
        resume: Id of an earlier run to go on with. An empty value opens a new one.
        parent: The run to nest under.

    Raises:
        UserError: If the run to go on with does not exist, is deleted, or is in use by another
            process.
        StoreAway: If the tracking store is away for too long.
    """
    tags = {KIND: kind, PROCESS: this_process(), **code_tags(), **tags}
    # MLflow would attach the next run to it, even one that is opened inside this one.
    project_run = os.environ.pop("MLFLOW_RUN_ID", "")
    if resume:
        before = existing(resume)
        if not parent:  # else the parent's process has seen to that
            require_left(before)
        if project_run and project_run != resume:
            _point_to(project_run, resume)
    make_store()
    opening = _Opening(name, tags, resume or project_run, parent)
    run = None
    try:
        run = Run(opening.start(), resumed=bool(resume), parent=parent)
        _show_as_model_training(run)
        if not resume and not parent:
            _end_left_behind(run, kind)
        yield run
        end(run, "FINISHED")
    except BaseException as error:
        status = "FAILED"
        if isinstance(error, (KeyboardInterrupt, Stopped)):
            status = "KILLED"
        if run is None and status == "KILLED":
            with undisturbed():
                run = opening.interrupted()
        if run:
            if isinstance(error, Stopped):
                run.end_tags["synthdetect.stopped"] = str(error)
            elif status == "FAILED":
                run.end_tags["synthdetect.error"] = str(error)[:5000] or type(error).__name__
            waits = isinstance(error, Exception) and not isinstance(error, StoreAway)
            is_ended = _end_after_error(run, status, waits=waits)
            if is_ended and status == "KILLED" and project_run:
                keep_status(run.id)
        raise
    with undisturbed():
        for action in run.when_finished:
            action()


def end(run: Run, status: str) -> None:
    """Set a run's `end_tags` and its status, and end what was left open inside it.

    Raises:
        StoreAway: If the tracking store is away for too long. The run stays RUNNING.
    """
    run.retry(partial(_end, run, status, _deactivate(run.id)))


def _end_after_error(run: Run, status: str, *, waits: bool) -> bool:
    """Do what `end` does, and print what goes wrong; returns whether nothing did."""
    try:
        with undisturbed():
            act = partial(_end, run, status, _deactivate(run.id))
            if not waits:
                require_answer()
                run.attempt(act)
        if waits:
            run.retry(act)
    except Exception as error:
        console.print(
            f"Run {run.id} could not be ended as {status}: {reason_of(error)}", style="bold yellow"
        )
        return False
    return True


def _deactivate(run_id: str) -> list[str]:
    """Take a run and what is open inside it off MLflow's stack of active runs.

    MLflow would end as FINISHED, when the process exits, whatever is still on the stack.

    Returns:
        Ids of these runs, the innermost first.
    """
    stack: list[ActiveRun] = _active_run_stack.get()  # type: ignore[no-untyped-call]
    ids = [active.info.run_id for active in stack]
    if run_id not in ids:
        return [run_id]
    position = ids.index(run_id)
    del stack[position:]
    return ids[position:][::-1]


def _end(run: Run, status: str, run_ids: Sequence[str]) -> None:
    """End runs, of which `run` is the outermost, without waiting."""
    with undisturbed():
        try:
            run._set_tags(run.end_tags)
        finally:
            for run_id in run_ids:
                try:
                    run._store.set_terminated(run_id, status)
                except MlflowException as error:
                    if run_id == run.id or is_away(error):
                        raise
                monitor = run_id_to_system_metrics_monitor.pop(run_id, None)
                if monitor:
                    monitor.finish()


class _Opening:
    """The opening of a run, which makes no second run however often it is attempted."""

    def __init__(self, name: str, tags: Mapping[str, str], resume: str, parent: Run | None) -> None:
        self._parent, self._resume = parent, resume
        self._mark = uuid4().hex
        marked = tags if resume else {**tags, _OPENING: self._mark}
        self._options: dict[str, Any] = {
            "run_name": None if resume else name or None,
            "nested": parent is not None,
            "parent_run_id": parent.id if parent else None,
            "tags": {k: without_secrets(v) for k, v in marked.items()},
            "log_system_metrics": True,
        }
        self._outer = mlflow.active_run()
        self._experiment = parent.experiment_id if parent else None
        self._is_tried = False

    def start(self) -> str:
        """Open the run, and wait while the store is away.

        Returns:
            Its id.
        """
        retry = self._parent.retry if self._parent else availability.retry
        active: ActiveRun = retry(self._start)
        return str(active.info.run_id)

    def interrupted(self) -> Run | None:
        """The run whose opening was interrupted, if it is there."""
        active = mlflow.active_run()
        if active and active is not self._outer:
            return Run(active.info.run_id)
        if self._resume:
            return Run(self._resume) if self._is_tried else None
        with suppress(Exception):
            found = self._marked() if answers() else ""
            return Run(found) if found else None
        return None

    def _start(self) -> ActiveRun:
        known = self._resume or (self._marked() if self._is_tried else "")
        self._is_tried = True
        return mlflow.start_run(known or None, self._experiment, **self._options)

    def _marked(self) -> str:
        """The id of the run that an earlier attempt made whose answer was lost, if there is one."""
        found = MlflowClient().search_runs(
            [self._experiment or _get_experiment_id() or "0"],
            f"tags.`{_OPENING}` = '{self._mark}'",
            max_results=1,
        )
        return found[0].info.run_id if found else ""


def _end_left_behind(run: Run, kind: str) -> None:
    """End, as KILLED, what processes of this machine left RUNNING when they were killed."""
    found = run.client.search_runs(
        [run.experiment_id],
        f"attributes.status = 'RUNNING' and tags.`{KIND}` = '{kind}'",
        max_results=1000,
    )
    for left in found:
        if is_gone(left.data.tags.get(PROCESS, "")):
            with suppress(MlflowException):  # it is not this run's business
                run.client.set_terminated(left.info.run_id, "KILLED")


def _show_as_model_training(run: Run) -> None:
    """Have the UI open the experiment as one of training runs, unless its owner chose otherwise."""
    experiment = run.client.get_experiment(run.experiment_id)
    if _EXPERIMENT_KIND not in experiment.tags:
        run.client.set_experiment_tag(
            run.experiment_id, _EXPERIMENT_KIND, "custom_model_development"
        )


def existing(run_id: str) -> MlflowRun:
    """A run of the tracking store, by its id.

    Raises:
        UserError: there is none, or it is deleted.
    """
    try:
        found = MlflowClient().get_run(run_id)
    except MlflowException as error:
        if not is_absent(error):
            raise
        raise UserError(
            f"no run {run_id!r} in {mlflow.get_tracking_uri()}. "
            "Set MLFLOW_TRACKING_URI to the store that has it."
        ) from error
    if found.info.lifecycle_stage != "active":
        raise UserError(f"run {run_id} is deleted; restore it first.")
    return found


def is_worked_on(run: MlflowRun) -> bool:
    """Whether another living process of this machine has a run open."""
    return run.info.status == "RUNNING" and is_another_alive(run.data.tags.get(PROCESS, ""))


def require_left(run: MlflowRun) -> None:
    """See that nobody on this machine is at work on a run.

    Raises:
        UserError: another process is.
    """
    if is_worked_on(run):
        number = run.data.tags[PROCESS].split(" ")[1]
        raise UserError(
            f"run {run.info.run_id} is RUNNING: process {number} of this machine is at work on it. "
            "Wait for it, or end it first."
        )


def fetch(client: MlflowClient, run_id: str, path: str, folder: str) -> Path | None:
    """Get a file among any run's artifacts into a folder; None where there is no such run or file.

    What cannot be had now, because the store is away or its server broken, is an error: it is not
    to be taken for what is not there.
    """
    try:
        listed = client.list_artifacts(run_id, posixpath.dirname(path) or None)
    except MlflowException as error:
        if not is_absent(error):
            raise
        return None
    if path not in (item.path for item in listed):
        return None
    return Path(client.download_artifacts(run_id, path, folder))


def close_unbegun(run_id: str) -> None:
    """End a run that was killed before it had recorded anything; nothing can go on in it."""
    client = MlflowClient()
    client.set_tag(run_id, NOT_BEGUN, "true")
    if client.get_run(run_id).info.status == "RUNNING":
        client.set_terminated(run_id, "KILLED")


def is_there(run_id: str) -> bool:
    """Whether the tracking store has a run, and it is not deleted."""
    try:
        return bool(run_id and existing(run_id))
    except UserError:
        return False


def stand_aside(run_id: str) -> None:
    """Say in the run that `mlflow run` opened for this process that the work is under another."""
    project_run = os.environ.pop("MLFLOW_RUN_ID", "")
    if project_run:
        _point_to(project_run, run_id)


def _point_to(run_id: str, resume: str) -> None:
    """`mlflow run` opened a run for what goes on in another: say so in it."""
    client = MlflowClient()
    client.set_tag(run_id, KIND, "resume")
    client.set_tag(run_id, "synthdetect.resumed_run", resume)
    client.set_tag(run_id, "mlflow.note.content", f"Nothing is in this run: it resumed {resume}.")
    client.update_run(run_id, name=f"resume of {resume}")


def keep_status(run_id: str) -> None:
    """Have a run keep its status though this process exits with another than 0 under `mlflow run`.

    MLflow 3.17 means to leave a status alone that the program has set, but compares a name with
    numbers and overwrites it. It writes when this process has ended, so a process of its own waits.
    """
    run = MlflowClient().get_run(run_id)
    if run.data.tags.get("mlflow.source.type") != "PROJECT":
        return  # nobody else writes its status
    subprocess.Popen(
        [sys.executable, "-m", "synthdetect.tracking.status", run_id, run.info.status],
        start_new_session=True,  # out of reach of the next Ctrl-C
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


@contextmanager
def undisturbed() -> Iterator[None]:
    """Put off Ctrl-C and SIGTERM while what the first one left is being saved."""
    try:
        before = {s: signal.signal(s, signal.SIG_IGN) for s in (signal.SIGINT, signal.SIGTERM)}
    except ValueError:  # not the main thread, which alone receives signals
        before = {}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def environment() -> dict[str, str]:
    """Versions of what the numbers depend on."""
    return {
        "version.synthdetect": __version__,
        "version.python": platform.python_version(),
        **{f"version.{name}": version(name) for name in _PACKAGES},
    }


def code_tags(folder: Path = Path(__file__).parent) -> dict[str, str]:
    """The git commit of a folder, and whether the code is another: results beside it are none."""
    tags = {}
    commit = _git(folder, "rev-parse", "HEAD")
    if commit:
        tags["git.commit"] = commit
        changed = _git(folder, "status", "--porcelain", "--untracked-files=all", "--", ":(top)*.py")
        tags["git.dirty"] = str(bool(changed)).lower()
    return tags


def _git(folder: Path, *arguments: str) -> str:
    try:
        result = subprocess.run(
            ["git", "-C", str(folder), *arguments], capture_output=True, text=True, timeout=20
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return result.stdout.strip() if result.returncode == 0 else ""

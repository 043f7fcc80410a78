"""One MLflow run: opened, filled and closed truthfully.

The status is FINISHED, FAILED for an error, KILLED for an interrupt. Under `mlflow run` the run
that MLflow opened is used; with `resume` an earlier one goes on.
"""

import logging
import os
import platform
import signal
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import mlflow
import pandas as pd
from matplotlib.figure import Figure
from mlflow.data.dataset import Dataset
from mlflow.data.pandas_dataset import from_pandas
from mlflow.entities import LoggedModelInput, RunStatus
from mlflow.entities import Run as MlflowRun
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient
from PIL import Image

from synthdetect import __version__
from synthdetect.console import console
from synthdetect.data.manifest import Manifest
from synthdetect.errors import UserError
from synthdetect.redact import without_secrets
from synthdetect.tracking.outbox import Line, Outbox, StoreAway, is_away, patient
from synthdetect.tracking.store import make_store

KIND = "synthdetect.kind"
"""Tag that says which command made a run."""

MANIFEST = "data/manifest.csv"
"""Artifact of a training run: its images, with their splits."""

FOLD = "synthdetect.fold"
"""Tag of a cross-validation's child run: its fold, or `refit`."""

WEIGHTS = "synthdetect.weights_sha256"
"""Tag of a training that logs no model: SHA-256 of its weights, of several separated by commas."""

NOT_BEGUN = "synthdetect.not_begun"
"""Tag of a run that was interrupted before it had recorded anything."""

AWAITS_STORE = "synthdetect.awaits_store"
"""Tag of a run that ended because its tracking store was away, so that it can go on."""

_EXPERIMENT_KIND = "mlflow.experimentKind"
_TEXT = (
    "path",
    "generator",
    "category",
    "source_id",
    "held_out",
)  # whatever it looks like
_PARAM_LIMIT = 6000
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
# What is said of a store that is away is said by `synthdetect.tracking.outbox`.
logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)
logging.getLogger("urllib3.connectionpool").setLevel(logging.ERROR)
# Advice that does not apply: no column has gaps, and a local path is one either way.
warnings.filterwarnings("ignore", message="Hint: Inferred schema contains integer column")
warnings.filterwarnings("ignore", message="The specified dataset source can be interpreted")
os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")


class Stopped(Exception):
    """Ended early on purpose: the run is KILLED, and a tag says why."""


class Run:
    """An open run. Everything is logged to it by id, whatever thread or active run there is.

    While the tracking store is away, metrics, parameters and tags are kept, and all else waits.
    """

    def __init__(self, run_id: str, *, resumed: bool = False) -> None:
        self.outbox = Outbox(run_id)
        self.client = patient(MlflowClient(), self.outbox)
        self.id = run_id
        self._resumed = resumed
        self._params: set[str] | None = None
        self._known: dict[str, set[tuple[int, float]]] = {}

    @property
    def experiment_id(self) -> str:
        """The experiment the run belongs to."""
        return str(self.client.get_run(self.id).info.experiment_id)

    def log_params(self, params: Mapping[str, Any]) -> None:
        """Log parameters; those the run already has are left alone, since MLflow's never change."""
        if self._params is None:
            self._params = set(self.client.get_run(self.id).data.params)
        new = {k: without_secrets(str(v)) for k, v in params.items() if k not in self._params}
        self.outbox.send(Line(params={k: v[:_PARAM_LIMIT] for k, v in new.items()}))
        self._params.update(new)

    def log_metrics(
        self,
        metrics: Mapping[str, float],
        step: int = 0,
        *,
        dataset: Dataset | None = None,
        model_id: str | None = None,
    ) -> None:
        """Log metrics in one transaction a hundred, bound to the dataset and model they are of.

        What a resumed run has already is not logged again.
        """
        now = int(time.time() * 1000)
        metrics = {k: v for k, v in metrics.items() if not self._has(k, step, v)}
        entries = [
            {
                "key": key, "value": float(value), "timestamp": now, "step": step,
                "model_id": model_id,
                "dataset_name": dataset.name if dataset else None,
                "dataset_digest": dataset.digest if dataset else None,
            }
            for key, value in metrics.items()
        ]  # fmt: skip
        self.outbox.send(Line(metrics=entries))

    def _has(self, name: str, step: int, value: float) -> bool:
        if not self._resumed:
            return False
        if name not in self._known:
            points = self.client.get_metric_history(self.id, name)
            self._known[name] = {(point.step, point.value) for point in points}
        return (step, value) in self._known[name]

    def log_history(
        self,
        history: Sequence[Mapping[str, float]],
        datasets: Mapping[str, Dataset],
        *,
        after: int = 0,
    ) -> None:
        """Log the epochs that the run does not have yet, each metric once a step.

        Args:
            history: of every epoch so far; epoch 1 is first and is step 1 after `after`.
            datasets: by the metric's prefix (`train/`, `val/`), what it was measured on.
            after: steps of what the run did before this history.
        """
        for name in sorted({name for record in history for name in record}):
            known = {m.step for m in self.client.get_metric_history(self.id, name)}
            dataset = datasets.get(name.split("/")[0])
            for step, record in enumerate(history, after + 1):
                if step not in known and name in record:
                    self.log_metrics({name: record[name]}, step, dataset=dataset)

    def log_epoch(
        self, record: Mapping[str, float], step: int, datasets: Mapping[str, Dataset]
    ) -> None:
        """Log one epoch's record."""
        by_prefix: dict[str, dict[str, float]] = {}
        for name, value in record.items():
            by_prefix.setdefault(name.split("/")[0], {})[name] = value
        for prefix, metrics in by_prefix.items():
            self.log_metrics(metrics, step, dataset=datasets.get(prefix))

    def set_tags(self, tags: Mapping[str, str]) -> None:
        """Set tags."""
        self.outbox.send(Line(tags={k: without_secrets(v) for k, v in tags.items()}))

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
        try:
            with tempfile.TemporaryDirectory() as folder:
                file = self.client.download_artifacts(run_id, path, folder)
                return pd.read_csv(file, keep_default_na=False, dtype=dict.fromkeys(_TEXT, str))
        except (MlflowException, OSError):
            return None

    def metric(self, run_id: str, name: str) -> float:
        """The last value of any run's metric."""
        return float(self.client.get_run(run_id).data.metrics[name])

    def log_rows(self, table: pd.DataFrame, path: str) -> None:
        """Log a table as JSON, which the UI lays beside other runs' in its table view."""
        self.client.log_table(self.id, table, path)

    def log_json(self, value: Mapping[str, Any], path: str) -> None:
        """Log a JSON artifact."""
        self.client.log_dict(self.id, dict(value), path)

    def log_file(self, file: Path, folder: str) -> None:
        """Log a file as an artifact in a folder."""
        self.client.log_artifact(self.id, str(file), folder)

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
                context = contexts.get(split, "evaluation")
                self.outbox.insist(partial(mlflow.log_input, dataset, context=context))
        counts = manifest.counts()
        self.log_table(counts, "data/counts.csv")
        sizes = counts.groupby(["split", "label"])["images"].sum()
        self.log_metrics({f"data/{s}/{label}": float(n) for (s, label), n in sizes.items()})
        return datasets

    def log_model_input(self, model_id: str) -> None:
        """Record that the run is about a model that another run has logged."""
        self.client.log_inputs(self.id, models=[LoggedModelInput(model_id)])

    def end(self, status: str) -> None:
        """Close the run, now or, if the store is away, by `synthdetect sync`."""
        try:
            mlflow.end_run(status)
        except Exception as error:
            if not is_away(error):
                raise
            self.outbox.keep(Line(status=status, ended=int(time.time() * 1000)))
        if not self.outbox.try_to_deliver():
            console.print(f"kept in {self.outbox.folder}; deliver it with: synthdetect sync")

    def describe(self, markdown: str) -> None:
        """Set the description that the UI shows on the run's page."""
        self.set_tags({"mlflow.note.content": markdown})


@contextmanager
def open_run(
    name: str, *, kind: str, tags: Mapping[str, str], resume: str = "", parent: Run | None = None
) -> Iterator[Run]:
    """Open a run, and close it with the status that is true.

    Args:
        name: of a new run; `mlflow run` has named its own.
        kind: the command, for the tag `synthdetect.kind`.
        tags: further tags.
        resume: id of a run to go on with.
        parent: the run to nest under.

    Raises:
        UserError: there is no run of that id, or it was deleted.
    """
    tags = {KIND: kind, **code_tags(), **tags}
    project_run = os.environ.get("MLFLOW_RUN_ID", "")
    if resume:
        existing(resume)
        os.environ.pop("MLFLOW_RUN_ID", None)
        if project_run and project_run != resume:
            _point_to(project_run, resume)
    elif project_run:
        name = ""  # attach to it, under the name that MLflow or its user gave
    make_store()
    if resume:
        Outbox(resume).deliver()
    start = partial(
        mlflow.start_run,
        run_id=resume or None,
        run_name=None if resume else name or None,
        nested=parent is not None,
        parent_run_id=parent.id if parent else None,
        tags={k: without_secrets(v) for k, v in tags.items()},
        log_system_metrics=True,
    )
    active = parent.outbox.insist(start) if parent else start()
    run = Run(active.info.run_id, resumed=bool(resume))
    _show_as_model_training(run)
    status = RunStatus.FINISHED
    try:
        yield run
        run.outbox.insist(lambda: None)
    except KeyboardInterrupt:
        status = RunStatus.KILLED
        raise
    except Stopped as stopped:
        status = RunStatus.KILLED
        run.set_tags({"synthdetect.stopped": str(stopped)})
        raise
    except BaseException as error:
        status = RunStatus.FAILED
        if isinstance(error, StoreAway):
            run.set_tags({AWAITS_STORE: "true"})
        run.set_tags({"synthdetect.error": str(error)[:5000] or type(error).__name__})
        raise
    finally:
        with undisturbed():
            run.end(RunStatus.to_string(status))
            if status == RunStatus.KILLED and project_run and run.outbox.is_empty:
                keep_status(run.id)


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
        raise UserError(
            f"no run {run_id!r} in {mlflow.get_tracking_uri()}. "
            "Set MLFLOW_TRACKING_URI to the store that has it."
        ) from error
    if found.info.lifecycle_stage != "active":
        raise UserError(f"run {run_id} is deleted; restore it first.")
    return found


def close_unbegun(run_id: str) -> None:
    """End a run that was killed before it had recorded anything; nothing can go on in it."""
    client = MlflowClient()
    client.set_tag(run_id, NOT_BEGUN, "true")
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


def code_tags() -> dict[str, str]:
    """The git commit, and whether it is what ran."""
    tags = {}
    folder = Path(__file__).parent
    commit = _git(folder, "rev-parse", "HEAD")
    if commit:
        tags["git.commit"] = commit
        tags["git.dirty"] = str(bool(_git(folder, "status", "--porcelain"))).lower()
    return tags


def _git(folder: Path, *arguments: str) -> str:
    try:
        result = subprocess.run(
            ["git", "-C", str(folder), *arguments], capture_output=True, text=True, timeout=20
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return result.stdout.strip() if result.returncode == 0 else ""

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
from typing import Any
from uuid import uuid4

import mlflow
import pandas as pd
from matplotlib.figure import Figure
from mlflow.data.dataset import Dataset
from mlflow.data.pandas_dataset import from_pandas
from mlflow.entities import LoggedModelInput, RunStatus
from mlflow.entities import Run as MlflowRun
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient
from mlflow.tracking.fluent import ActiveRun, _active_run_stack, _get_experiment_id
from mlflow.utils.mlflow_tags import MLFLOW_LOGGED_ARTIFACTS
from PIL import Image

from synthdetect import __version__
from synthdetect.datasets.manifest import Manifest
from synthdetect.system.console import console
from synthdetect.system.errors import UserError
from synthdetect.system.processes import is_another_alive, is_gone, this_process
from synthdetect.system.redaction import without_secrets
from synthdetect.tracking.outbox import (
    Line,
    Outbox,
    StoreAway,
    answers,
    is_absent,
    is_away,
    patient,
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

AWAITS_STORE = "synthdetect.awaits_store"
"""Tag of a run that ended because its tracking store was away, so that it can go on."""

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

    Attributes:
        when_finished: to be called once the run has ended as FINISHED.
    """

    def __init__(self, run_id: str, *, resumed: bool = False) -> None:
        self.outbox = Outbox(run_id)
        self.client = patient(MlflowClient(), self.outbox)
        self.id = run_id
        self.when_finished: list[Callable[[], None]] = []
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
        """Log files as `log_file` does, if that is possible at once; says what it is that hinders.

        For where an error is on its way, which nothing else may take the place of.
        """
        try:
            if not answers():
                raise StoreAway("the tracking store does not answer")
            for file in files:
                MlflowClient().log_artifact(self.id, str(file), folder)
        except Exception as error:
            reason = without_secrets((str(error) or type(error).__name__).splitlines()[0])[:300]
            names = ", ".join(map(str, files))
            console.print(f"not among the run's artifacts ({reason}): {names}", style="bold yellow")

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
        """Close the run, now or, if the store is away, by `synthdetect sync`.

        What was opened inside and left open is closed with it.
        """
        opened: list[ActiveRun] = _active_run_stack.get()  # type: ignore[no-untyped-call]
        stack = [active.info.run_id for active in opened]
        inside = stack[stack.index(self.id) + 1 :] if self.id in stack else []
        for run_id in (*reversed(inside), self.id):
            try:
                _end(run_id, status)
            except Exception as error:
                if is_away(error):
                    Outbox(run_id).keep(Line(status=status, ended=int(time.time() * 1000)))
                elif run_id == self.id:
                    raise
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
        UserError: there is no run of that id, it was deleted, or another process works on it.
    """
    tags = {KIND: kind, PROCESS: this_process(), **code_tags(), **tags}
    project_run = os.environ.get("MLFLOW_RUN_ID", "")
    if resume:
        before = existing(resume)
        if not parent:  # else the parent's process has seen to that
            require_left(before)
        tags[AWAITS_STORE] = "false"
        os.environ.pop("MLFLOW_RUN_ID", None)
        if project_run and project_run != resume:
            _point_to(project_run, resume)
    elif project_run:
        name = ""  # attach to it, under the name that MLflow or its user gave
    make_store()
    if resume:
        Outbox(resume).deliver()
    opening = _Opening(name, tags, resume, parent)
    run, status, words = None, RunStatus.FINISHED, dict[str, str]()
    try:
        run = Run(opening.start(), resumed=bool(resume))
        _show_as_model_training(run)
        if not resume and not parent:
            _end_left_behind(run, kind)
        yield run
        run.outbox.insist(lambda: None)
    except KeyboardInterrupt:
        status = RunStatus.KILLED
        raise
    except Stopped as stopped:
        status = RunStatus.KILLED
        words["synthdetect.stopped"] = str(stopped)
        raise
    except BaseException as error:
        status = RunStatus.FAILED
        if isinstance(error, StoreAway):
            words[AWAITS_STORE] = "true"
        words["synthdetect.error"] = str(error)[:5000] or type(error).__name__
        raise
    finally:
        with undisturbed():
            if run is None and status == RunStatus.KILLED:
                run = opening.interrupted()
            if run:
                _close(run, RunStatus.to_string(status), words, is_project=bool(project_run))


class _Opening:
    """The opening of a run, which may be tried again: one that is there already is taken."""

    def __init__(self, name: str, tags: Mapping[str, str], resume: str, parent: Run | None) -> None:
        self._parent, self._resume = parent, resume
        self._mark = "" if resume else uuid4().hex
        marked = {**tags, **({_OPENING: self._mark} if self._mark else {})}
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
        """Open the run; one under a parent waits for a store that is away.

        Returns:
            Its id.
        """
        active = self._parent.outbox.insist(self._start) if self._parent else self._start()
        return str(active.info.run_id)

    def interrupted(self) -> Run | None:
        """The run whose opening was interrupted, if it is there."""
        active = mlflow.active_run()
        if active and active is not self._outer:
            return Run(active.info.run_id)
        with suppress(Exception):
            found = self._marked() if answers() else ""
            return Run(found) if found else None
        return None

    def _start(self) -> ActiveRun:
        known = self._resume or (self._marked() if self._is_tried else "")
        self._is_tried = True
        return mlflow.start_run(known or None, self._experiment, **self._options)

    def _marked(self) -> str:
        """The id of the run that an earlier try has made, whose answer was lost."""
        if not self._mark:
            return ""
        found = MlflowClient().search_runs(
            [self._experiment or _get_experiment_id() or "0"],
            f"tags.`{_OPENING}` = '{self._mark}'",
            max_results=1,
        )
        return found[0].info.run_id if found else ""


def _close(run: Run, status: str, words: Mapping[str, str], *, is_project: bool) -> None:
    """Say why a run ends, end it, and do what waits for that."""
    try:
        if words:
            run.set_tags(words)
    finally:
        run.end(status)
    if status == "KILLED" and is_project and run.outbox.is_empty:
        keep_status(run.id)
    if status == "FINISHED":
        for action in run.when_finished:
            action()


def _end(run_id: str, status: str) -> None:
    active = mlflow.active_run()
    if active and active.info.run_id == run_id:
        mlflow.end_run(status)  # which also ends the watch over the machine
    else:
        MlflowClient().set_terminated(run_id, status)


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

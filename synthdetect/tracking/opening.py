"""Opens a run, and ends it with the status that is true.

Under `mlflow run`, the run that MLflow opened is used.
"""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any
from uuid import uuid4

import mlflow
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient
from mlflow.tracking.fluent import (
    ActiveRun,
    _active_run_stack,
    _get_experiment_id,
    _last_active_run_id,
    run_id_to_system_metrics_monitor,
)
from mlflow.utils.name_utils import _GENERATOR_NOUNS, _GENERATOR_PREDICATES

from synthdetect.system.console import console, waiting
from synthdetect.system.errors import UserError
from synthdetect.system.processes import is_gone, this_process
from synthdetect.system.redaction import without_secrets
from synthdetect.tracking import addresses, availability
from synthdetect.tracking.availability import (
    StoreAway,
    answers,
    is_away,
    reason_of,
    require_answer,
    waiting_client,
)
from synthdetect.tracking.load import ProcessMonitor
from synthdetect.tracking.options import BY_KIND, TrackingOptions
from synthdetect.tracking.provenance import code_tags
from synthdetect.tracking.queries import existing, existing_entity, require_idle
from synthdetect.tracking.run import Run
from synthdetect.tracking.store import is_server, make_store, tracking_uri
from synthdetect.tracking.tags import KIND, PROCESS
from synthdetect.tracking.views import View, save_view_of_all, save_view_of_children

_OPENING = "synthdetect.opening"  # tag of a run: a random text that its opening chose
_EXPERIMENT_KIND = "mlflow.experimentKind"
_SYSTEM_METRICS = os.environ.get("MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING", "true").lower() in (
    "true", "1",
)  # fmt: skip
"""Whether runs record what their machine does; MLflow's own variable switches it off."""


class Stopped(Exception):
    """The run is to end early on purpose: it is KILLED, and a tag says why."""


@contextmanager
def open_run(
    name: str,
    *,
    kind: str,
    tags: Mapping[str, str],
    resume: str = "",
    parent: Run | None = None,
    tracking: TrackingOptions | None = None,
    view: View | None = None,
) -> Iterator[Run]:
    """Open a run, and end it with the status that is true.

    The status is FINISHED, FAILED after an error, or KILLED after an interrupt. If it cannot be
    set because the store is away, the run stays RUNNING until a later process sees that this one
    is gone.

    Args:
        name: Name of a new run that says what it is. Under `mlflow run`, the run takes it in place
            of the random name that MLflow gives, but keeps a name that the user gave.
        kind: The command, for the tag `synthdetect.kind`.
        tags: Further tags.
        resume: Id of an earlier run to go on with. An empty value opens a new one.
        parent: The run to nest under.
        tracking: The experiment and the name that the user wants; by default the user wants none.
        view: The view of its child runs that is saved for the UI, if it has such a view.

    Raises:
        UserError: If the run to go on with does not exist, is deleted, or is in use by another
            process.
        StoreAway: If the tracking store is away for too long.
    """
    tags = {KIND: kind, PROCESS: this_process(), **code_tags(), **tags}
    # MLflow would attach the next run to it, even one that is opened inside this one.
    project_run = os.environ.pop("MLFLOW_RUN_ID", "")
    if resume:
        earlier = existing(resume)
        if not parent:  # this process has the parent run, and so its child runs
            require_idle(earlier)
        if project_run and project_run != resume:
            _point_to(project_run, resume)
    with waiting(f"the tracking store {tracking_uri()} is made"):
        make_store()
    wanted = tracking or TrackingOptions()
    experiment = "" if resume or parent else _experiment(wanted, kind)
    elsewhere = ""  # the run of `mlflow run`, if it is in another experiment
    if project_run and experiment and existing_entity(project_run).info.experiment_id != experiment:
        project_run, elsewhere = "", project_run
    name = wanted.run_name or name
    opening = _Opening(name, tags, resume or project_run, parent, experiment)
    run = None
    try:
        run = Run(opening.start(), resumed=bool(resume), parent=parent)
        if elsewhere:
            _point_to(elsewhere, run.id, kind="moved")
        if project_run and not resume:
            _name(run, name, given=bool(wanted.run_name))
        _show_as_model_training(run)
        if not parent:
            if not resume:
                end_left_behind(run.client, [run.experiment_id])
            _publish(run, name, view)
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
            run.print_pages()
        raise
    with undisturbed():
        for action in run.when_finished:
            action()


def _experiment(tracking: TrackingOptions, kind: str) -> str:
    """Return the id of the experiment that the user wants; empty if any will do."""
    name = f"synthdetect {kind}" if tracking.experiment == BY_KIND else tracking.experiment
    if not name:
        return ""
    client = waiting_client()
    found = client.get_experiment_by_name(name)
    if found is None:
        with suppress(MlflowException):  # another process may make it at the same time
            return str(client.create_experiment(name))
        found = client.get_experiment_by_name(name)
    if found is None or found.lifecycle_stage != "active":
        raise UserError(f"--experiment: {name!r} cannot be used; it may be deleted. Restore it.")
    return str(found.experiment_id)


def _name(run: Run, name: str, *, given: bool) -> None:
    """Name a run that `mlflow run` has made, unless its user has named it."""
    words = (run.client.get_run(run.id).info.run_name or "").split("-")
    is_random = (
        len(words) == 3
        and words[0] in _GENERATOR_PREDICATES
        and words[1] in _GENERATOR_NOUNS
        and words[2].isdecimal()
    )
    if given or is_random:
        run.client.update_run(run.id, name=name)


def _publish(run: Run, name: str, view: View | None) -> None:
    """Save the views of the UI that concern a run, and print the address of its page."""
    experiment = run.experiment_id
    save_view_of_all(run.client, experiment)
    page = addresses.run_page(experiment, run.id)
    if is_server():
        run.pages = {"look at it": page}
    else:
        run.pages = {"look at it": f"synthdetect ui {run.id}", "at": page}
    if view:
        save_view_of_children(run.client, experiment, run.id, name, view)
        run.pages["its runs"] = addresses.runs_page(experiment, run.id)
    console.print(f"follow it    {page}")


def end(run: Run, status: str) -> None:
    """Set a run's `end_tags` and its status, and end what was left open inside it.

    Raises:
        StoreAway: If the tracking store is away for too long. The run stays RUNNING.
    """
    run.retry(partial(_end, run, status, _deactivate(run.id)))


def _end_after_error(run: Run, status: str, *, waits: bool) -> bool:
    """Do what `end` does, but print errors instead of raising them.

    Returns:
        Whether the run was ended.
    """
    try:
        with undisturbed():
            action = partial(_end, run, status, _deactivate(run.id))
            if not waits:
                require_answer()
                run.attempt(action)
        if waits:
            run.retry(action)
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
    _last_active_run_id.set(run_id)  # type: ignore[no-untyped-call]
    return ids[position:][::-1]


def _end(run: Run, status: str, run_ids: Sequence[str]) -> None:
    """End runs, of which `run` is the outermost, without waiting."""
    client = MlflowClient()
    with undisturbed():
        try:
            run.send_tags(run.end_tags)
        finally:
            for run_id in run_ids:
                try:
                    client.set_terminated(run_id, status)
                except MlflowException as error:
                    if run_id == run.id or is_away(error):
                        raise
                monitor = run_id_to_system_metrics_monitor.pop(run_id, None)
                if monitor:
                    monitor.finish()


class _Opening:
    """The opening of a run, which makes no second run however often it is attempted."""

    def __init__(
        self,
        name: str,
        tags: Mapping[str, str],
        resume: str,
        parent: Run | None,
        experiment: str = "",
    ) -> None:
        self._parent, self._resume = parent, resume
        self._mark = uuid4().hex
        marked = tags if resume else {**tags, _OPENING: self._mark}
        self._options: dict[str, Any] = {
            "run_name": None if resume else name or None,
            "nested": parent is not None,
            "parent_run_id": parent.id if parent else None,
            "tags": {k: without_secrets(v) for k, v in marked.items()},
            "log_system_metrics": _SYSTEM_METRICS,
        }
        self._outer = mlflow.active_run()
        self._experiment = parent.experiment_id if parent else experiment or None
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
        """The run whose opening was interrupted, if it was made."""
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
        active = mlflow.start_run(known or None, self._experiment, **self._options)
        monitor = run_id_to_system_metrics_monitor.get(active.info.run_id)
        if monitor:
            monitor.monitors.append(ProcessMonitor())
        return active

    def _marked(self) -> str:
        """The id of the run that an earlier attempt made whose answer was lost, if there is one."""
        found = MlflowClient().search_runs(
            [self._experiment or _get_experiment_id() or "0"],
            f"tags.`{_OPENING}` = '{self._mark}'",
            max_results=1,
        )
        return found[0].info.run_id if found else ""


def end_left_behind(client: MlflowClient, experiments: Sequence[str]) -> list[str]:
    """End, as KILLED, the runs that processes of this machine left RUNNING.

    Args:
        client: A client of the tracking store.
        experiments: Ids of the experiments in which to look.

    Returns:
        The ids of these runs.
    """
    ended = []
    found = client.search_runs(list(experiments), "attributes.status = 'RUNNING'", max_results=1000)
    for left in found:
        if is_gone(left.data.tags.get(PROCESS, "")):
            with suppress(MlflowException):  # nothing else depends on it
                client.set_terminated(left.info.run_id, "KILLED")
                ended.append(str(left.info.run_id))
    return ended


def _show_as_model_training(run: Run) -> None:
    """Let the UI show the experiment as one of training runs, unless its owner chose a kind."""
    experiment = run.client.get_experiment(run.experiment_id)
    if _EXPERIMENT_KIND not in experiment.tags:
        run.client.set_experiment_tag(
            run.experiment_id, _EXPERIMENT_KIND, "custom_model_development"
        )


def stand_aside(run_id: str) -> None:
    """Note in the run that `mlflow run` opened for this process that another run has the results.

    Args:
        run_id: Id of the other run.
    """
    project_run = os.environ.pop("MLFLOW_RUN_ID", "")
    if project_run:
        _point_to(project_run, run_id)


def _point_to(run_id: str, other: str, *, kind: str = "resume") -> None:
    """Note in a run of `mlflow run` that another run, which this process works on, has the results.

    Args:
        run_id: Id of the run.
        other: Id of the other run.
        kind: `resume` if the other run was there before, else `moved`.
    """
    client = waiting_client()
    done = {"resume": f"it resumed {other}", "moved": f"{other} in another experiment has all"}
    client.set_tag(run_id, KIND, kind)
    client.set_tag(run_id, "synthdetect.resumed_run", other)
    client.set_tag(run_id, "mlflow.note.content", f"Nothing is in this run: {done[kind]}.")
    client.update_run(run_id, name=f"{kind} {'of' if kind == 'resume' else 'to'} {other}")


def keep_status(run_id: str) -> None:
    """Make a run keep its status under `mlflow run` although this process exits with an error.

    MLflow 3.17 sets the status to FAILED when this process has ended: it means to keep a status
    that the program has set, but compares its name with numbers. So another process waits for
    that, and sets the status back.
    """
    try:
        run = MlflowClient().get_run(run_id)
    except MlflowException:
        return  # the error that this process exits with is more important
    if run.data.tags.get("mlflow.source.type") != "PROJECT":
        return
    subprocess.Popen(
        [sys.executable, "-m", "synthdetect.tracking.status", run_id, run.info.status],
        start_new_session=True,  # so that Ctrl-C does not reach it
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


@contextmanager
def undisturbed() -> Iterator[None]:
    """Ignore Ctrl-C and SIGTERM while the outcome of a run is saved."""
    try:
        before = {s: signal.signal(s, signal.SIG_IGN) for s in (signal.SIGINT, signal.SIGTERM)}
    except ValueError:  # this is not the main thread, which alone receives signals
        before = {}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)

"""Tuning with Optuna: studies in a database, and trials that survive interruptions.

The database is the authority on trials, MLflow on runs: each trial names its run, and each run its
trial. Each side is tuned in a study of its own; the final fits are the trials of one more study.
A trial that was interrupted is queued again, and resumes its run from the last checkpoint; Optuna
calls that a retry.
"""

import copy
import datetime
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import optuna
import torch
from optuna.exceptions import ExperimentalWarning
from optuna.storages import RDBStorage, RetryHeartbeatStaleTrialCallback
from optuna.trial import FrozenTrial, Trial, TrialState

from sweeps.strategies import Choice, FloatRange, IntRange, SearchParameter
from synthdetect.system.databases import require_database
from synthdetect.system.errors import UserError
from synthdetect.system.processes import is_gone, this_process
from synthdetect.system.redaction import without_secrets
from synthdetect.tracking.availability import StoreAway

RUN = "mlflow_run_id"
"""User attribute of a trial, and of a study: its run."""

PROCESS = "process"
"""User attribute of a trial, and of a study: the process that works on it."""

_FAILED_BY_ITSELF = "failed_by_itself"
"""User attribute of a trial that failed because of its values, and is not retried."""

_MACHINE_FAULTS = "machine_faults"
"""User attribute of a trial: how often it failed because of the machine."""

_MAX_MACHINE_FAULTS = (
    3  # values that exceed the machine's limits every time are at fault themselves
)

_HEARTBEAT, _GRACE = 30, 120  # seconds
_STARTUP_TRIALS = 4
_DATABASE_HINT = (
    "Give a database of its own: sqlite:///FILE, or postgresql://HOST/NAME with its driver "
    "installed."
)

# Of heartbeats and figures. MLflow resets the filters later, hence the one in `_retried`.
warnings.filterwarnings("ignore", category=ExperimentalWarning)
optuna.logging.set_verbosity(optuna.logging.ERROR)

_queue_copy = RetryHeartbeatStaleTrialCallback(inherit_intermediate_values=True)


def require_storage(url: str) -> None:
    """Check, without changing anything, that a database can hold Optuna's studies.

    Raises:
        UserError: If it cannot.
    """
    own = {"studies", "trials", "version_info"}
    require_database(url, "--storage", program="Optuna", tables=own, instead=_DATABASE_HINT)


def open_storage(url: str) -> RDBStorage:
    """Open Optuna's database.

    A trial whose process sends no heartbeat any more is failed, so that it can be retried.

    Raises:
        UserError: If the database cannot be opened.
    """
    require_storage(url)
    connect = {"connect_args": {"timeout": 60}} if url.startswith("sqlite") else {}
    try:
        return RDBStorage(
            url,
            engine_kwargs=connect,
            heartbeat_interval=_HEARTBEAT,
            grace_period=_GRACE,
        )
    except Exception as error:  # SQLAlchemy's and the drivers' are an open set
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(
            f"--storage: {without_secrets(url)} cannot be opened: {reason.rstrip('.')}. "
            f"{_DATABASE_HINT}"
        ) from error


def open_study(
    storage: RDBStorage, name: str, *, sampler: str = "random", seed: int = 0, prune: bool = False
) -> optuna.Study:
    """Open a study, or create it.

    Args:
        storage: Where the study is kept.
        name: Name of the study.
        sampler: `tpe` or `random`.
        seed: Seed of the sampler. The next values depend on it and on the trials so far, however
            often one of them was interrupted.
        prune: Whether `make_pruner` stops trials early.
    """
    study = optuna.create_study(
        storage=storage, study_name=name, load_if_exists=True, direction="maximize"
    )
    waiting = study.get_trials(deepcopy=False, states=(TrialState.WAITING,))
    drawn = begun(study) - len(waiting)
    seed = int(np.random.SeedSequence([seed, drawn]).generate_state(1)[0])
    study.sampler = {
        "tpe": optuna.samplers.TPESampler(
            seed=seed, n_startup_trials=_STARTUP_TRIALS, multivariate=True, constant_liar=True
        ),
        "random": optuna.samplers.RandomSampler(seed=seed),
    }[sampler]
    study.pruner = make_pruner() if prune else optuna.pruners.NopPruner()
    return study


def make_pruner() -> optuna.pruners.BasePruner:
    """Make the pruner: asynchronous successive halving (Li et al. 2020, arXiv:1810.05934).

    After 3, 9, 27, ... steps a trial continues if it is in the best third of all trials that have
    reached that step. A percentile pruner would compare it only with trials that were completed,
    which are the better ones, and the more so the more trials there are.
    """
    return optuna.pruners.SuccessiveHalvingPruner(min_resource=3, reduction_factor=3)


def suggest(trial: Trial, space: Mapping[str, SearchParameter]) -> dict[str, Any]:
    """Return the trial's values in a search space, which Optuna samples and records."""
    return {name: _suggest(trial, name, parameter.range) for name, parameter in space.items()}


def _suggest(trial: Trial, name: str, range: FloatRange | IntRange | Choice) -> Any:
    match range:
        case FloatRange(low, high, log):
            return trial.suggest_float(name, low, high, log=log)
        case IntRange(low, high):
            return trial.suggest_int(name, low, high)
        case Choice(values):
            return trial.suggest_categorical(name, values)


def recover(study: optuna.Study) -> None:
    """Queue interrupted trials again: after Ctrl-C, or where their process has ended.

    A trial of a process on another machine is queued once its heartbeat has been missing for long
    enough. Only the process that leads a study may call this, or a trial would be queued twice.
    """
    optuna.storages.fail_stale_trials(study)
    for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        if _is_abandoned(trial):
            study.tell(trial.number, state=TrialState.FAIL, skip_if_finished=True)
    retried = _retried(study)
    for trial in study.get_trials(deepcopy=False, states=(TrialState.FAIL,)):
        if trial.number not in retried and _was_interrupted(trial):
            _retry(study, trial)


def _was_interrupted(trial: FrozenTrial) -> bool:
    return trial.state == TrialState.FAIL and not trial.user_attrs.get(_FAILED_BY_ITSELF)


def _is_abandoned(trial: FrozenTrial) -> bool:
    """Whether a running trial's process has ended, perhaps before it was recorded in the trial."""
    process = trial.user_attrs.get(PROCESS)
    if process:
        return is_gone(process)
    begun = trial.datetime_start
    return begun is not None and (datetime.datetime.now() - begun).total_seconds() > _GRACE


def _retry(study: optuna.Study, trial: FrozenTrial) -> None:
    """Queue a trial again, with its run and its progress, for any process to take.

    A trial that had not started to train draws all its values anew. If it kept some, the others
    would differ from those of a trial that was not interrupted.
    """
    retry = copy.deepcopy(trial)
    retry.user_attrs.pop(PROCESS, None)
    if RUN not in retry.user_attrs:
        retry.params, retry.distributions = {}, {}
    _queue_copy(study, retry)


def settled(study: optuna.Study) -> list[FrozenTrial]:
    """Return the trials that have ended for good, by number; not those that are retried."""
    return [
        trial
        for trial in study.get_trials(deepcopy=False)
        if trial.state.is_finished() and not _was_interrupted(trial)
    ]


def begun(study: optuna.Study) -> int:
    """Return the number of trials, counting a trial and its retries once."""
    retried = _retried(study)
    return sum(trial.number not in retried for trial in study.get_trials(deepcopy=False))


def waiting(study: optuna.Study) -> bool:
    """Return whether a trial is queued."""
    return bool(study.get_trials(deepcopy=False, states=(TrialState.WAITING,)))


def running(study: optuna.Study) -> bool:
    """Return whether a process works on a trial."""
    return bool(study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)))


def run_one(study: optuna.Study, objective: Callable[[Trial], float]) -> None:
    """Run one trial; the study continues if the trial fails because of its values.

    Raises:
        Exception: If the trial failed because of the machine: its disk, its memory, one of its
            processes, or the tracking store. That says nothing about the trial, which is retried
            when the study is continued, unless the machine fails every time.
    """
    faults: list[Exception] = []

    def watched(trial: Trial) -> float:
        trial.set_user_attr(PROCESS, this_process())
        try:
            return objective(trial)
        except optuna.TrialPruned:
            raise
        except Exception as error:
            if is_machine_fault(error):
                faults.append(error)
                # An unreachable store never counts: it does not depend on the trial's values.
                count = trial.user_attrs.get(_MACHINE_FAULTS, 0)
                count += not isinstance(error, StoreAway)
                trial.set_user_attr(_MACHINE_FAULTS, count)
            if not faults or trial.user_attrs[_MACHINE_FAULTS] >= _MAX_MACHINE_FAULTS:
                trial.set_user_attr(_FAILED_BY_ITSELF, True)
            raise

    study.optimize(watched, n_trials=1, catch=(Exception,))
    if faults:
        raise faults[0]


def is_machine_fault(error: BaseException) -> bool:
    """Return whether an error is due to the machine and not to the values that were tried.

    Some libraries raise general exceptions, which only their message tells apart.
    """
    message = str(error)
    return (
        isinstance(error, (OSError, MemoryError, torch.OutOfMemoryError, StoreAway))
        or (
            isinstance(error, RuntimeError)
            and ("DataLoader worker" in message or "can't allocate memory" in message)
        )
        or "I/O error" in message
    )


def _retried(study: optuna.Study) -> set[int]:
    """Numbers of the trials that a retry has replaced."""
    found: set[int] = set()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        for trial in study.get_trials(deepcopy=False):
            found.update(RetryHeartbeatStaleTrialCallback.retry_history(trial))
    return found

"""Tuning with Optuna: studies in a database, and trials that survive interruptions.

The database is the authority on trials, MLflow on runs: each trial names its run, and each run its
trial. Each side is tuned in a study of its own; the final fits are the trials of one more study.
A trial that was interrupted is queued again, and resumes its run from the last checkpoint; Optuna
calls that a retry.
"""

import copy
import time
import warnings
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

import numpy as np
import optuna
import torch
from optuna.exceptions import (
    ExperimentalWarning,
    StorageInternalError,
    UpdateFinishedTrialError,
)
from optuna.storages import RDBStorage, RetryHeartbeatStaleTrialCallback
from optuna.trial import FrozenTrial, Trial, TrialState

from sweeps.storage import GRACE
from sweeps.strategies import Choice, FloatRange, IntRange, SearchParameter
from synthdetect.system.processes import is_gone, this_process
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

_STARTUP_TRIALS = 4

_first_seen: dict[tuple[int, datetime | None], float] = {}
"""When this process first saw a running trial that names no process, by number and start."""

# Of figures. MLflow resets the filters later, hence the one in `_retried`.
warnings.filterwarnings("ignore", category=ExperimentalWarning)
optuna.logging.set_verbosity(optuna.logging.ERROR)

_queue_copy = RetryHeartbeatStaleTrialCallback(inherit_intermediate_values=True)


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
    study.sampler = _make_sampler(sampler, seed, begun(study) - len(waiting))
    study.pruner = make_pruner() if prune else optuna.pruners.NopPruner()
    return study


def _make_sampler(name: str, seed: int, position: int) -> optuna.samplers.BaseSampler:
    """Make the sampler of one trial; `position` counts the trials before it, without retries."""
    seed = int(np.random.SeedSequence([seed, position]).generate_state(1)[0])
    if name == "random":
        return optuna.samplers.RandomSampler(seed=seed)
    return optuna.samplers.TPESampler(
        seed=seed, n_startup_trials=_STARTUP_TRIALS, multivariate=True, constant_liar=True
    )


def draw_by_number(study: optuna.Study, trial: Trial, *, sampler: str, seed: int) -> None:
    """Let a trial draw its random values by its own number.

    Other processes may have begun trials since the study was opened. Without this, trials that
    begin at the same moment would draw the same values. A retry has the number of its first trial.
    """
    trials = study.get_trials(deepcopy=False)
    first = _first_number(trials[trial.number])
    position = sum(t.number < first and _first_number(t) == t.number for t in trials)
    study.sampler = _make_sampler(sampler, seed, position)


def run_of(storage: RDBStorage, name: str) -> str:
    """Return the id of a study's run; empty if there is no such study, or if it has none yet."""
    if name not in optuna.get_all_study_names(storage):
        return ""
    study = optuna.load_study(study_name=name, storage=storage)
    return str(study.user_attrs.get(RUN, ""))


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
    key = trial.number, trial.datetime_start
    since = _first_seen.setdefault(key, time.monotonic())  # the clock of its machine may differ
    return time.monotonic() - since > GRACE


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
    """Return the trials that have ended for good; not those that are retried.

    They are ordered by number, in which a retry takes the place of its first trial: whether a trial
    was interrupted does not change which of equally good ones comes first.
    """
    ended = [
        trial
        for trial in study.get_trials(deepcopy=False)
        if trial.state.is_finished() and not _was_interrupted(trial)
    ]
    return sorted(ended, key=_first_number)


def begun(study: optuna.Study) -> int:
    """Return the number of trials, counting a trial and its retries once."""
    retried = _retried(study)
    return sum(trial.number not in retried for trial in study.get_trials(deepcopy=False))


def count_waiting(study: optuna.Study) -> int:
    """Return how many trials are queued."""
    return len(study.get_trials(deepcopy=False, states=(TrialState.WAITING,)))


def count_running(study: optuna.Study) -> int:
    """Return how many trials a process works on."""
    return len(study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)))


def run_one(study: optuna.Study, objective: Callable[[Trial], float]) -> None:
    """Run one trial; the study continues if the trial fails because of its values.

    Raises:
        RuntimeError: If the trial was given up and is repeated, because it seemed to be dead.
        Exception: If the trial failed because of the machine: its disk, its memory, one of its
            processes, the tracking store, or the database of the studies. That says nothing about
            the trial, which is retried when the study is continued, unless the machine fails every
            time.
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
                count += not isinstance(error, (StoreAway, StorageInternalError))
                trial.set_user_attr(_MACHINE_FAULTS, count)
            if not faults or trial.user_attrs[_MACHINE_FAULTS] >= _MAX_MACHINE_FAULTS:
                trial.set_user_attr(_FAILED_BY_ITSELF, True)
            raise

    try:
        study.optimize(watched, n_trials=1, catch=(Exception,))
    except (AssertionError, UpdateFinishedTrialError) as error:  # Optuna 5 raises the former
        raise RuntimeError(
            f"the trial was given up meanwhile, since no sign of life had reached --storage for "
            f"{GRACE} s: this process stood still, or could not reach it. The trial is repeated. "
            "Start this process again."
        ) from error
    if faults:
        raise faults[0]


def is_machine_fault(error: BaseException) -> bool:
    """Return whether an error is due to the machine and not to the values that were tried.

    Some libraries raise general exceptions, which only their message tells apart.
    """
    message = str(error)
    return (
        isinstance(
            error,
            (OSError, MemoryError, torch.OutOfMemoryError, StoreAway, StorageInternalError),
        )
        or (
            isinstance(error, RuntimeError)
            and ("DataLoader worker" in message or "can't allocate memory" in message)
        )
        or "I/O error" in message
    )


def _first_number(trial: FrozenTrial) -> int:
    """Number of the trial that a retry goes back to; its own if it is no retry."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        first = RetryHeartbeatStaleTrialCallback.retried_trial_number(trial)
    return trial.number if first is None else int(first)


def _retried(study: optuna.Study) -> set[int]:
    """Numbers of the trials that a retry has replaced."""
    found: set[int] = set()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        for trial in study.get_trials(deepcopy=False):
            found.update(RetryHeartbeatStaleTrialCallback.retry_history(trial))
    return found

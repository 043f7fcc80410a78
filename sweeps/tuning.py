"""Optuna's part: studies in a database, trials that survive interruptions, pruning, workers.

The database is the truth about trials, MLflow the truth about runs; each trial names its run and
each run its trial. A study belongs to one side, and one more holds the final trainings.
"""

import copy
import datetime
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import optuna
import torch
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.exceptions import ExperimentalWarning
from optuna.storages import RDBStorage, RetryHeartbeatStaleTrialCallback
from optuna.trial import FrozenTrial, Trial, TrialState

from sweeps.strategies import SearchParameter
from synthdetect.system.databases import require_database
from synthdetect.system.errors import UserError
from synthdetect.system.processes import is_gone, this_process
from synthdetect.system.redaction import without_secrets
from synthdetect.tracking.availability import StoreAway

RUN = "mlflow_run_id"
"""User attribute of a trial, and of a study: its run."""

PROCESS = "process"
"""User attribute of a trial, and of a study: the process at it."""

_BY_ITSELF = "failed_by_itself"
"""User attribute of a trial that failed for what was tried, and is not tried again."""

_FAULTS = "machine_faults"
"""User attribute of a trial: how often the machine was at fault."""

_MOST_FAULTS = 3  # what meets the machine's limits every time is at fault itself

_HEARTBEAT, _GRACE = 30, 120  # seconds
_STARTUP_TRIALS = 4
_INSTEAD = (
    "Give a database of its own: sqlite:///FILE, or postgresql://HOST/NAME with its driver "
    "installed."
)
_SUGGEST: dict[type, Callable[[Trial, str, Any], Any]] = {
    FloatDistribution: lambda trial, name, d: trial.suggest_float(name, d.low, d.high, log=d.log),
    IntDistribution: lambda trial, name, d: trial.suggest_int(name, d.low, d.high, log=d.log),
    CategoricalDistribution: lambda trial, name, d: trial.suggest_categorical(name, d.choices),
}

# Of heartbeats and figures; MLflow resets the filters later, hence once more below.
warnings.filterwarnings("ignore", category=ExperimentalWarning)
optuna.logging.set_verbosity(optuna.logging.ERROR)

_REPEAT = RetryHeartbeatStaleTrialCallback(inherit_intermediate_values=True)


def require_storage(url: str) -> None:
    """See, changing nothing, that there can be a study in a database.

    Raises:
        UserError: it cannot.
    """
    own = {"studies", "trials", "version_info"}
    require_database(url, "--storage", program="Optuna", tables=own, instead=_INSTEAD)


def open_storage(url: str) -> RDBStorage:
    """Open Optuna's database; a process that falls silent has its trial failed, to be retried.

    Raises:
        UserError: it cannot be opened.
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
            f"--storage: {without_secrets(url)} cannot be opened: {reason.rstrip('.')}. {_INSTEAD}"
        ) from error


def open_study(
    storage: RDBStorage, name: str, *, sampler: str = "random", seed: int = 0, prune: bool = False
) -> optuna.Study:
    """Open a study, or make it.

    Args:
        storage: where it is.
        name: of the study.
        sampler: `tpe` or `random`.
        seed: of the sampler, and of what it samples next: the same trials have the same successor,
            however often one of them was interrupted.
        prune: whether `make_pruner` stops trials early.
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
    """What stops trials early: asynchronous successive halving (Li et al., 2020, arXiv 1810.05934).

    After 3, 9, 27, ... steps a trial goes on if it is in the best third of all that have come so
    far. A percentile pruner would compare it with those alone that came to their end, which are
    the better ones, and more so with every trial.
    """
    return optuna.pruners.SuccessiveHalvingPruner(min_resource=3, reduction_factor=3)


def suggest(trial: Trial, space: Mapping[str, SearchParameter]) -> dict[str, Any]:
    """The trial's values."""
    return {
        name: _SUGGEST[type(parameter.range)](trial, name, parameter.range)
        for name, parameter in space.items()
    }


def recover(study: optuna.Study) -> None:
    """Queue again what was interrupted: by Ctrl-C, or with a process of this machine that is gone.

    What another machine's process left is queued once its heartbeat has been missing long enough.
    Only the one process that leads a study may do this, or a trial would be queued twice.
    """
    optuna.storages.fail_stale_trials(study)
    for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        if _is_left(trial):
            study.tell(trial.number, state=TrialState.FAIL, skip_if_finished=True)
    retried = _retried(study)
    for trial in study.get_trials(deepcopy=False, states=(TrialState.FAIL,)):
        if trial.number not in retried and _was_interrupted(trial):
            _retry(study, trial)


def _was_interrupted(trial: FrozenTrial) -> bool:
    return trial.state == TrialState.FAIL and not trial.user_attrs.get(_BY_ITSELF)


def _is_left(trial: FrozenTrial) -> bool:
    """Whether nobody is at a trial any more: its process is gone, or was before it could sign."""
    process = trial.user_attrs.get(PROCESS)
    if process:
        return is_gone(process)
    begun = trial.datetime_start
    return begun is not None and (datetime.datetime.now() - begun).total_seconds() > _GRACE


def _retry(study: optuna.Study, trial: FrozenTrial) -> None:
    """Queue a trial again: with its run and as far as it had come, for any process to take.

    One that had not begun to train draws its values anew, and as a whole: half of them drawn, the
    other half would be others than if it had not been interrupted.
    """
    again = copy.deepcopy(trial)
    again.user_attrs.pop(PROCESS, None)
    if RUN not in again.user_attrs:
        again.params, again.distributions = {}, {}
    _REPEAT(study, again)


def settled(study: optuna.Study) -> list[FrozenTrial]:
    """The trials that have ended for good, by number: not those that are or will be retried."""
    return [
        trial
        for trial in study.get_trials(deepcopy=False)
        if trial.state.is_finished() and not _was_interrupted(trial)
    ]


def begun(study: optuna.Study) -> int:
    """How many trials there are that were not replaced by a retry."""
    retried = _retried(study)
    return sum(trial.number not in retried for trial in study.get_trials(deepcopy=False))


def waiting(study: optuna.Study) -> bool:
    """Whether a trial is queued."""
    return bool(study.get_trials(deepcopy=False, states=(TrialState.WAITING,)))


def running(study: optuna.Study) -> bool:
    """Whether some process is at a trial."""
    return bool(study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)))


def run_one(study: optuna.Study, objective: Callable[[Trial], float]) -> None:
    """Run one trial; one that fails is recorded as that, and the study goes on.

    Raises:
        Exception: what failed was the machine (its disk, its memory, a process of it, the tracking
            store). That says nothing of the trial, which is made again when the study goes on, as
            long as it does not happen every time.
    """
    faults: list[Exception] = []

    def watched(trial: Trial) -> float:
        trial.set_user_attr(PROCESS, this_process())
        try:
            return objective(trial)
        except optuna.TrialPruned:
            raise
        except Exception as error:
            if is_the_machines(error):
                faults.append(error)
                # A store that is away is so whatever is tried.
                count = trial.user_attrs.get(_FAULTS, 0) + (not isinstance(error, StoreAway))
                trial.set_user_attr(_FAULTS, count)
            if not faults or trial.user_attrs[_FAULTS] >= _MOST_FAULTS:
                trial.set_user_attr(_BY_ITSELF, True)
            raise

    study.optimize(watched, n_trials=1, catch=(Exception,))
    if faults:
        raise faults[0]


def is_the_machines(error: BaseException) -> bool:
    """Whether an error is not of what was tried but of where; some libraries say it in words."""
    said = str(error)
    return (
        isinstance(error, (OSError, MemoryError, torch.OutOfMemoryError, StoreAway))
        or (
            isinstance(error, RuntimeError)
            and ("DataLoader worker" in said or "can't allocate memory" in said)
        )
        or "I/O error" in said
    )


def _retried(study: optuna.Study) -> set[int]:
    """Numbers of the trials that another one has taken the place of."""
    found: set[int] = set()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        for trial in study.get_trials(deepcopy=False):
            found.update(RetryHeartbeatStaleTrialCallback.retry_history(trial))
    return found

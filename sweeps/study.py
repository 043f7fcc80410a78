"""A sweep: tune every side alike, train each finally on several folds, and judge.

Rounds go over all sides, a trial each, so that every side has had the same number when time runs
out. Then the final trainings, which are trials of one more study, so that any number of processes
can share them. The process that leads opens the parent run and concludes.
"""

import json
import shutil
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import FrozenTrial, Trial, TrialState

from sweeps import tuning
from sweeps.options import SweepOptions
from sweeps.plan import show_plan
from sweeps.results import conclude
from sweeps.setting import Setting, make_setting
from sweeps.strategies import BASELINE, space
from sweeps.training import fit_finally, tune_in
from synthdetect.commands.report import write_report
from synthdetect.commands.train import tags
from synthdetect.runs.training import CONFIG
from synthdetect.system.console import console
from synthdetect.system.errors import UserError
from synthdetect.system.files import require_folder
from synthdetect.system.processes import is_gone, this_process
from synthdetect.system.redaction import without_secrets
from synthdetect.tracking.run import (
    MANIFEST,
    PROCESS,
    Run,
    Stopped,
    close_unbegun,
    environment,
    open_run,
    stand_aside,
)
from synthdetect.training.devices import resolve

STUDY, STRATEGY, TRIAL, STATE = (
    f"synthdetect.{name}" for name in ("study", "strategy", "trial", "trial_state")
)
"""Tags of a sweep's runs."""

_OPTIONS = "options"
"""User attribute of the baseline's study: what it was begun with."""

_TUNED = "tuned"
"""User attribute of a final training: the values that tuning chose."""

_PATIENCE = 2.0  # seconds between looks at what other processes do
_MAY_CHANGE = (
    "trials",
    "timeout",
    "worker",
    "takeover",
    "dry_run",
    "output",
    "workers",
    "cache_gib",
    "storage",
)
"""Options that a study may be gone on with differently, since they change no training."""


@dataclass(frozen=True)
class Sweep(Setting):
    """A setting with where its trials and its runs are kept.

    Attributes:
        storage: Optuna's.
        parent: the run that all others are under.
    """

    storage: optuna.storages.RDBStorage
    parent: Run | None = None

    def study(self, side: str) -> optuna.Study:
        """The study in which one side is tuned."""
        options = self.options
        return tuning.open_study(
            self.storage, f"{options.study}/{side}", sampler=options.sampler,
            seed=options.seed, prune=options.prune,
        )  # fmt: skip

    def finals(self) -> optuna.Study:
        """The study whose trials are the final trainings."""
        return tuning.open_study(self.storage, f"{self.options.study}/finals")


def sweep(options: SweepOptions) -> None:
    """Tune, train finally and compare; the same study's name goes on where it was.

    Raises:
        UserError: options, data or a storage that do not fit.
    """
    prepared_sweep = _prepare(options)
    if options.dry_run:
        show_plan(prepared_sweep)
        return
    study = prepared_sweep.study(BASELINE)
    parent_id = _claim(study, prepared_sweep)
    if options.worker:
        if not parent_id:
            raise UserError(f"--worker: no study {options.study!r} is led in this storage yet.")
        stand_aside(parent_id)
        _work(replace(prepared_sweep, parent=Run(parent_id)))
        return
    leader = study.user_attrs.get(tuning.PROCESS, "")
    if leader and not (is_gone(leader) or options.takeover):
        raise UserError(
            f"--study: {options.study!r} is led by another process ({leader}). Help it by --worker "
            "true, or stop it first. If its machine is gone for good: --takeover true."
        )
    study.set_user_attr(tuning.PROCESS, this_process())
    labels = {**tags("sweep", options), STUDY: options.study}
    try:
        with open_run(f"sweep {options.study}", kind="sweep", tags=labels, resume=parent_id) as run:
            study.set_user_attr(tuning.RUN, run.id)
            led = replace(prepared_sweep, parent=run)
            storage = without_secrets(options.storage)
            console.print(f"run {run.id}  study {options.study} in {storage}")
            _log_setting(led, run)
            _close_orphans(led, run)
            _work(led)
            conclude(led, run)
    finally:
        if study.user_attrs.get(tuning.PROCESS) == this_process():  # nobody has taken over
            study.set_user_attr(tuning.PROCESS, "")
    console.print(f"run          {run.id}")
    write_report(run.id)


def _prepare(options: SweepOptions) -> Sweep:
    device = resolve(options.device, options.precision, options.workers, options.arch)
    require_folder(Path(options.output), "--output")
    tuning.require_storage(options.storage)
    setting = make_setting(options, device)
    return Sweep(**vars(setting), storage=tuning.open_storage(options.storage))


def _claim(study: optuna.Study, sweep: Sweep) -> str:
    """The parent run's id if the study was begun before, with the same options and data.

    Raises:
        UserError: it was begun with others.
    """
    values = {k: v for k, v in sweep.options.to_json().items() if k not in _MAY_CHANGE}
    values["data.digest"] = sweep.prepared.digest()
    known = study.user_attrs.get(_OPTIONS)
    if known is None:
        study.set_user_attr(_OPTIONS, json.loads(json.dumps(values)))
    else:
        other = [name for name in values if known.get(name) != values[name]]
        if other:
            was = ", ".join(f"{name} {known.get(name)!r}" for name in other)
            raise UserError(
                f"--study: {sweep.options.study!r} was begun with {was}. Give the same, or another "
                "name."
            )
    return str(study.user_attrs.get(tuning.RUN, ""))


def _log_setting(sweep: Sweep, run: Run) -> None:
    options, prepared = sweep.options, sweep.prepared
    facts = {f"hardware.{name}": value for name, value in sweep.device.describe().items()}
    digest = prepared.manifest.digest()
    run.log_params({**options.to_flat(), **facts, **environment(), "data.digest": digest})
    record = options.to_json() | {"storage": without_secrets(options.storage)}
    run.log_json({"options": record, "digest": prepared.digest()}, CONFIG)
    run.log_manifest(prepared.manifest)
    run.log_table(sweep.splits.parts, MANIFEST)
    sizes = sweep.splits.parts["split"].value_counts()
    run.log_metrics({f"data/{name}": float(size) for name, size in sizes.items()})


def _close_orphans(sweep: Sweep, run: Run) -> None:
    """End the runs that were killed after being opened and before their trial had named them."""
    studies = [sweep.finals(), *map(sweep.study, sweep.names)]
    named = {
        trial.user_attrs.get(tuning.RUN)
        for study in studies
        for trial in study.get_trials(deepcopy=False)
    }
    query = f"tags.`mlflow.parentRunId` = '{run.id}' and attributes.status = 'RUNNING'"
    for found in run.client.search_runs([run.experiment_id], query, max_results=1000):
        process = found.data.tags.get(PROCESS, "")
        if found.info.run_id not in named and is_gone(process):
            close_unbegun(found.info.run_id)


def _work(sweep: Sweep) -> None:
    """Do what there is to do, beside whatever other processes do, until all is done."""
    _tune(sweep)
    _train_finally(sweep)


def _tune(sweep: Sweep) -> None:
    if sweep.finals().get_trials(deepcopy=False):
        console.print("tuning is over: the final trainings have begun with what it found")
        return
    began, rounds = time.monotonic(), 0
    while rounds < sweep.options.trials:
        late = sweep.options.timeout and time.monotonic() - began > sweep.options.timeout
        if late and rounds:  # every side has had as many
            console.print(f"--timeout: tuning ends after {rounds} rounds", style="bold yellow")
            break
        rounds += 1
        _round(sweep, rounds)
    while _round(sweep, rounds) or _others_tune(sweep):
        pass


def _round(sweep: Sweep, rounds: int) -> bool:
    """A trial for each side that has one waiting, or has begun fewer; whether there was any."""
    made = False
    for side in sweep.names:
        study = sweep.study(side)
        _recover(sweep, study)
        if tuning.waiting(study) or tuning.begun(study) < rounds:
            _trial(sweep, side, study)
            made = True
    return made


def _others_tune(sweep: Sweep) -> bool:
    """Whether other processes are at their last trials, which may fail; looks again in a while."""
    if not any(tuning.running(sweep.study(side)) for side in sweep.names):
        return False
    time.sleep(_PATIENCE)
    return True


def _recover(sweep: Sweep, study: optuna.Study) -> None:
    if not sweep.options.worker:
        tuning.recover(study)


def _trial(sweep: Sweep, side: str, study: optuna.Study) -> None:
    parameters = space(side, sweep.options.lr)
    if not study.get_trials(deepcopy=False):
        first = {name: parameter.first for name, parameter in parameters.items()}
        study.enqueue_trial(first, skip_if_exists=True)

    def objective(trial: Trial) -> float:
        tuned = tuning.suggest(trial, parameters)
        options = sweep.training(side, tuned, sweep.options.seed)
        with _Child(sweep, side, trial, "trial", f"{side} trial {trial.number}") as child:
            value = tune_in(
                child.run, options, sweep, sweep.device_for(options), _folder(sweep, child.run),
                report=lambda value, step: _report(trial, value, step),
            )  # fmt: skip
        return value

    tuning.run_one(study, objective)
    _say(study)


def _report(trial: Trial, value: float, step: int) -> None:
    trial.report(value, step)
    if trial.should_prune():
        raise Stopped(f"pruned after step {step} at {value:.4f}")


def _train_finally(sweep: Sweep) -> None:
    finals = sweep.finals()
    planned: list[dict[str, Any]] = [
        {"side": side, "fold": fold, "seed": seed}
        for fold in range(len(sweep.splits.final))
        for seed in range(sweep.options.seed, sweep.options.seed + sweep.options.seeds)
        for side in sweep.names
    ]
    if not sweep.options.worker:
        known = {_place(trial) for trial in finals.get_trials(deepcopy=False)}
        tuned = {side: chosen(sweep, side) for side in sweep.names}  # once, for all folds
        for place in planned:
            if tuple(place.values()) not in known:
                finals.enqueue_trial(place, user_attrs={**place, _TUNED: tuned[place["side"]]})
    while True:
        _recover(sweep, finals)
        done = {_place(trial) for trial in tuning.settled(finals)}
        if tuning.waiting(finals):
            tuning.run_one(finals, lambda trial: _final(sweep, trial))
            _say(finals)
        elif done >= {tuple(place.values()) for place in planned} or _left_alone(sweep):
            return
        else:
            time.sleep(_PATIENCE)  # other processes are at the last ones


def _left_alone(sweep: Sweep) -> bool:
    """Whether this is a worker whose leader is gone."""
    leader = sweep.study(BASELINE).user_attrs.get(tuning.PROCESS, "")
    return sweep.options.worker and (not leader or is_gone(leader))


def _place(trial: FrozenTrial | Trial) -> tuple[Any, ...]:
    """Side, fold and seed of a final training."""
    return tuple(trial.user_attrs.get(name) for name in ("side", "fold", "seed"))


def _final(sweep: Sweep, trial: Trial) -> float:
    """One final training, scored on the test; its value is the validation AUC."""
    side, fold, seed = _place(trial)
    if side is None:  # another process took the one that was waiting
        raise optuna.TrialPruned
    tuned = trial.user_attrs[_TUNED]
    if tuned is None:
        raise RuntimeError(f"no trial of {side} came to its end, so there is nothing to train")
    options = sweep.training(side, tuned, seed)
    title = f"{side} fold {fold + 1}" + (f" seed {seed}" if sweep.options.seeds > 1 else "")
    with _Child(sweep, side, trial, "final", title) as child:
        device, folder = sweep.device_for(options), _folder(sweep, child.run)
        return fit_finally(child.run, options, sweep, device, fold, folder)


def chosen(sweep: Sweep, side: str) -> dict[str, Any] | None:
    """The best trial's values, among as many as every side has had; None if none was whole."""
    counts = [len(tuning.settled(sweep.study(name))) for name in sweep.names]
    trials = tuning.settled(sweep.study(side))[: min(counts)]
    whole = [trial for trial in trials if trial.state == TrialState.COMPLETE]
    if not whole:
        return None
    return dict(max(whole, key=lambda trial: (trial.value or 0.0, -trial.number)).params)


def _say(study: optuna.Study) -> None:
    """How the last trial ended."""
    for trial in tuning.settled(study)[-1:]:
        value = f" with {trial.value:.4f}" if trial.value is not None else ""
        console.print(f"{trial.state.name.lower()}{value}")


def _folder(sweep: Sweep, run: Run) -> Path:
    return Path(sweep.options.output) / run.id


class _Child:
    """A trial's run: opened (or gone on with), and closed as the trial ends."""

    def __init__(self, sweep: Sweep, side: str, trial: Trial, kind: str, title: str) -> None:
        self._sweep, self._trial = sweep, trial
        console.print(title, style="bold")
        labels = {
            STUDY: sweep.options.study,
            STRATEGY: side,
            TRIAL: str(trial.number),
            "optuna.study": trial.study.study_name,
        }
        known = trial.user_attrs.get(tuning.RUN, "")
        self._opened = open_run(title, kind=kind, tags=labels, resume=known, parent=sweep.parent)

    def __enter__(self) -> "_Child":
        self.run = self._opened.__enter__()
        self._trial.set_user_attr(tuning.RUN, self.run.id)
        return self

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        interrupted = bool(kind) and (
            not issubclass(kind, Exception) or tuning.is_the_machines(error)
        )
        states = {None: "complete", Stopped: "pruned"}
        state = "interrupted" if interrupted else states.get(kind, "failed")
        self.run.end_tags[STATE] = state
        self._opened.__exit__(kind, error, trace)
        if not interrupted:  # else it goes on from its checkpoint
            shutil.rmtree(_folder(self._sweep, self.run), ignore_errors=True)
        if kind is Stopped:
            raise optuna.TrialPruned(str(error)) from error

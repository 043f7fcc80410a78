"""The sweep command: tune all sides, run the final fits, and conclude.

Tuning goes in rounds of one trial for each side, so that all sides have had equally many when time
runs out. The final fits are the trials of one more study. Any number of processes can share both:
one process, the leader, opens the parent run and concludes; workers only run trials.
"""

import json
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import FrozenTrial, Trial

from sweeps import tuning
from sweeps.options import SweepOptions
from sweeps.plan import show_plan
from sweeps.results import conclude
from sweeps.setting import make_setting
from sweeps.strategies import BASELINE, first_values, space
from sweeps.sweep import Sweep
from sweeps.training import fit_finally, tune_in
from synthdetect.config.options import Affects
from synthdetect.report.writing import write_report
from synthdetect.runs.messages import command_tags
from synthdetect.runs.preflight import resolve_device
from synthdetect.runs.setting import log_setting
from synthdetect.system.console import console
from synthdetect.system.errors import UserError
from synthdetect.system.files import require_folder
from synthdetect.system.processes import is_gone, this_process
from synthdetect.system.redaction import without_secrets
from synthdetect.tracking.opening import Stopped, open_run, stand_aside
from synthdetect.tracking.queries import child_runs, close_unbegun
from synthdetect.tracking.run import Run
from synthdetect.tracking.tags import MANIFEST, PROCESS

STUDY, STRATEGY, TRIAL, STATE = (
    f"synthdetect.{name}" for name in ("study", "strategy", "trial", "trial_state")
)
"""Tags of a sweep's runs."""

_OPTIONS = "options"
"""User attribute of the baseline's study: the options and data that it was started with."""

_TUNED = "tuned"
"""User attribute of a final fit: the values that tuning found."""

_POLL_SECONDS = 2.0


def sweep(options: SweepOptions) -> None:
    """Run the sweep command; the name of an existing study continues it.

    Raises:
        UserError: If the options, the data or the storage cannot be used, or if another process
            leads the study.
    """
    prepared_sweep = _prepare(options)
    if options.study.dry_run:
        show_plan(prepared_sweep)
        return
    study = prepared_sweep.study(BASELINE)
    parent_id = _register_options(study, prepared_sweep)
    if options.study.worker:
        if not parent_id:
            raise UserError(
                f"--worker: no process leads a study {options.study.study!r} in this --storage "
                "yet. Start one without --worker first."
            )
        stand_aside(parent_id)
        _work(replace(prepared_sweep, parent=Run(parent_id)))
        return
    leader = study.user_attrs.get(tuning.PROCESS, "")
    if leader and not (is_gone(leader) or options.study.takeover):
        raise UserError(
            f"--study: another process ({leader}) leads {options.study.study!r}. Work on the study "
            "with it by --worker true, or stop it first. If its machine is gone for good, give "
            "--takeover true."
        )
    study.set_user_attr(tuning.PROCESS, this_process())
    labels = {**command_tags("sweep", options), STUDY: options.study.study}
    try:
        with open_run(
            f"sweep {options.study.study}", kind="sweep", tags=labels, resume=parent_id
        ) as run:
            study.set_user_attr(tuning.RUN, run.id)
            led = replace(prepared_sweep, parent=run)
            storage = without_secrets(options.study.storage)
            console.print(f"run {run.id}  study {options.study.study} in {storage}")
            _log_sweep(led, run)
            _close_orphans(led, run)
            _work(led)
            conclude(led, run)
    finally:
        if study.user_attrs.get(tuning.PROCESS) == this_process():  # no other has taken over
            study.set_user_attr(tuning.PROCESS, "")
    console.print(f"run          {run.id}")
    write_report(run.id)


def _prepare(options: SweepOptions) -> Sweep:
    device = resolve_device(options.device, options.model.arch)
    require_folder(Path(options.study.output), "--output")
    tuning.require_storage(options.study.storage)
    setting = make_setting(options, device)
    return Sweep(**vars(setting), storage=tuning.open_storage(options.study.storage))


def _register_options(study: optuna.Study, sweep: Sweep) -> str:
    """Record the options and the data of a new study, or compare them with an existing one's.

    Returns:
        The id of the parent run; empty if there is none yet.

    Raises:
        UserError: If the study was started with other options or data.
    """
    free = SweepOptions.affecting(Affects.SPEED, Affects.RECORD, Affects.BUDGET)
    values = {k: v for k, v in sweep.options.to_json().items() if k not in free}
    values["data.digest"] = sweep.prepared.digest()
    known = study.user_attrs.get(_OPTIONS)
    if known is None:
        study.set_user_attr(_OPTIONS, json.loads(json.dumps(values)))
    else:
        differing = [name for name in values if known.get(name) != values[name]]
        if differing:
            before = ", ".join(f"{name} {known.get(name)!r}" for name in differing)
            raise UserError(
                f"--study: {sweep.options.study.study!r} was started with {before}. Give the same, "
                "or another --study."
            )
    return str(study.user_attrs.get(tuning.RUN, ""))


def _log_sweep(sweep: Sweep, run: Run) -> None:
    """Log the setting of the sweep, with the part of every image: tuning, final, test, target."""
    prepared = sweep.prepared
    manifest, digest = prepared.manifest, prepared.digest()
    log_setting(run, sweep.options, digest=digest, manifest=manifest, device=sweep.device)
    run.log_table(sweep.splits.parts, MANIFEST)
    sizes = sweep.splits.parts["split"].value_counts()
    run.log_metrics({f"data/{name}": float(size) for name, size in sizes.items()})


def _close_orphans(sweep: Sweep, run: Run) -> None:
    """Close the runs whose process was killed between opening them and naming them in a trial."""
    studies = [sweep.final_fits(), *map(sweep.study, sweep.sides)]
    named = {
        trial.user_attrs.get(tuning.RUN)
        for study in studies
        for trial in study.get_trials(deepcopy=False)
    }
    for found in child_runs(run.id):
        is_left = found.status == "RUNNING" and is_gone(found.tags.get(PROCESS, ""))
        if is_left and found.id not in named:
            close_unbegun(found.id)


def _work(sweep: Sweep) -> None:
    """Run trials until none is left, beside any other processes."""
    _tune(sweep)
    _run_final_fits(sweep)


# --- tuning


def _tune(sweep: Sweep) -> None:
    if sweep.final_fits().get_trials(deepcopy=False):
        console.print("Tuning is over: the final fits have started with the values that it found.")
        return
    began, rounds = time.monotonic(), 0
    while rounds < sweep.options.study.trials:
        late = (
            sweep.options.study.timeout and time.monotonic() - began > sweep.options.study.timeout
        )
        if late and rounds:  # all sides have had equally many
            console.print(f"--timeout: tuning ends after {rounds} rounds", style="bold yellow")
            break
        rounds += 1
        _run_round(sweep, rounds)
    while _run_round(sweep, rounds) or _wait_for_others(sweep):
        pass


def _run_round(sweep: Sweep, rounds: int) -> bool:
    """Run a trial for each side with a queued trial or fewer than `rounds`.

    Returns:
        Whether there was such a side.
    """
    has_run = False
    for side in sweep.sides:
        study = sweep.study(side)
        _recover(sweep, study)
        if tuning.waiting(study) or tuning.begun(study) < rounds:
            _run_trial(sweep, side, study)
            has_run = True
    return has_run


def _wait_for_others(sweep: Sweep) -> bool:
    """Wait for a while if other processes still tune, since their trials may fail and be retried.

    Returns:
        Whether other processes still tune.
    """
    if not any(tuning.running(sweep.study(side)) for side in sweep.sides):
        return False
    time.sleep(_POLL_SECONDS)
    return True


def _recover(sweep: Sweep, study: optuna.Study) -> None:
    if not sweep.options.study.worker:
        tuning.recover(study)


def _run_trial(sweep: Sweep, side: str, study: optuna.Study) -> None:
    parameters = space(side, sweep.options.optim.lr)
    if not study.get_trials(deepcopy=False):
        study.enqueue_trial(first_values(parameters), skip_if_exists=True)

    def objective(trial: Trial) -> float:
        tuned = tuning.suggest(trial, parameters)
        options = sweep.training(side, tuned, sweep.options.optim.seed)
        with _trial_run(sweep, side, trial, "trial", f"{side} trial {trial.number}") as run:
            return tune_in(
                run, options, sweep, sweep.device_for(options), _folder(sweep, run),
                report=lambda value, step: _report(trial, value, step),
            )  # fmt: skip

    tuning.run_one(study, objective)
    _print_outcome(study)


def _report(trial: Trial, value: float, step: int) -> None:
    trial.report(value, step)
    if trial.should_prune():
        raise Stopped(f"pruned after step {step} at {value:.4f}")


# --- final fits


def _run_final_fits(sweep: Sweep) -> None:
    study = sweep.final_fits()
    planned: list[dict[str, Any]] = [
        {"side": side, "fold": fold, "seed": seed}
        for fold in range(len(sweep.splits.final))
        for seed in range(
            sweep.options.optim.seed, sweep.options.optim.seed + sweep.options.study.seeds
        )
        for side in sweep.sides
    ]
    if not sweep.options.study.worker:
        queued = {_final_fit(trial) for trial in study.get_trials(deepcopy=False)}
        tuned = {side: sweep.best_values(side) for side in sweep.sides}  # once, for all folds
        for fit in planned:
            if tuple(fit.values()) not in queued:
                study.enqueue_trial(fit, user_attrs={**fit, _TUNED: tuned[fit["side"]]})
    while True:
        _recover(sweep, study)
        done = {_final_fit(trial) for trial in tuning.settled(study)}
        if tuning.waiting(study):
            tuning.run_one(study, lambda trial: _run_final_fit(sweep, trial))
            _print_outcome(study)
        elif done >= {tuple(fit.values()) for fit in planned} or _is_abandoned(sweep):
            return
        else:
            time.sleep(_POLL_SECONDS)  # other processes run the last ones


def _is_abandoned(sweep: Sweep) -> bool:
    """Whether this process is a worker, and its leader has ended."""
    leader = sweep.study(BASELINE).user_attrs.get(tuning.PROCESS, "")
    return sweep.options.study.worker and (not leader or is_gone(leader))


def _final_fit(trial: FrozenTrial | Trial) -> tuple[Any, ...]:
    """Side, fold and seed of a final fit; None each if the trial was not queued as one."""
    return tuple(trial.user_attrs.get(name) for name in ("side", "fold", "seed"))


def _run_final_fit(sweep: Sweep, trial: Trial) -> float:
    """Train once and score the test split; the trial's value is the validation AUC."""
    side, fold, seed = _final_fit(trial)
    if side is None:  # another process took the queued trial, so that Optuna made a new one
        raise optuna.TrialPruned
    tuned = trial.user_attrs[_TUNED]
    if tuned is None:
        raise RuntimeError(f"no tuning trial of {side} was completed, so it has no final fit")
    options = sweep.training(side, tuned, seed)
    title = f"{side} fold {fold + 1}" + (f" seed {seed}" if sweep.options.study.seeds > 1 else "")
    with _trial_run(sweep, side, trial, "final", title) as run:
        return fit_finally(run, options, sweep, sweep.device_for(options), fold)


# --- runs of trials


@contextmanager
def _trial_run(sweep: Sweep, side: str, trial: Trial, kind: str, title: str) -> Iterator[Run]:
    """Open a trial's run, or resume it, and close it in the state in which the trial ends.

    An interrupted trial keeps its checkpoint, from which a retry resumes.

    Raises:
        TrialPruned: If the trial was stopped early.
    """
    console.print(title, style="bold")
    labels = {
        STUDY: sweep.options.study.study,
        STRATEGY: side,
        TRIAL: str(trial.number),
        "optuna.study": trial.study.study_name,
    }
    resume = trial.user_attrs.get(tuning.RUN, "")
    state = "interrupted"
    try:
        with open_run(title, kind=kind, tags=labels, resume=resume, parent=sweep.parent) as run:
            trial.set_user_attr(tuning.RUN, run.id)
            try:
                yield run
                state = "complete"
            except Stopped:
                state = "pruned"
                raise
            except Exception as error:
                state = "interrupted" if tuning.is_machine_fault(error) else "failed"
                raise
            finally:
                run.end_tags[STATE] = state
    except Stopped as stopped:
        shutil.rmtree(_folder(sweep, run), ignore_errors=True)
        raise optuna.TrialPruned(str(stopped)) from stopped
    except Exception:
        if state == "failed":
            shutil.rmtree(_folder(sweep, run), ignore_errors=True)
        raise
    shutil.rmtree(_folder(sweep, run), ignore_errors=True)


def _folder(sweep: Sweep, run: Run) -> Path:
    """Folder of a run's checkpoints."""
    return Path(sweep.options.study.output) / run.id


def _print_outcome(study: optuna.Study) -> None:
    """Print how the last trial ended."""
    for trial in tuning.settled(study)[-1:]:
        value = f" with {trial.value:.4f}" if trial.value is not None else ""
        console.print(f"{trial.state.name.lower()}{value}")

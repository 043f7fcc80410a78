"""The sweep command: tune all sides, run the final fits, and conclude.

Tuning goes in rounds of one trial for each side, so that all sides have had equally many when time
runs out. The final fits are the trials of one more study. Any number of processes can share both:
one process, the leader, opens the parent run and concludes; workers only run trials.
"""

import json
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import FrozenTrial, Trial, TrialState

from sweeps import tuning
from sweeps.options import SweepOptions
from sweeps.plan import show_plan
from sweeps.results import conclude
from sweeps.seeds import final_seed, tuning_seed
from sweeps.setting import make_setting
from sweeps.storage import open_storage, require_storage
from sweeps.strategies import BASELINE, SearchParameter, first_values, space
from sweeps.sweep import Sweep
from sweeps.training import fit_finally, tune_in
from synthdetect.config.options import Affects
from synthdetect.report.writing import write_report
from synthdetect.runs.messages import announce, command_tags
from synthdetect.runs.preflight import resolve_device
from synthdetect.runs.setting import log_setting
from synthdetect.system.console import console, waiting
from synthdetect.system.errors import UserError
from synthdetect.system.files import require_folder
from synthdetect.system.processes import is_gone, this_process
from synthdetect.system.redaction import without_secrets
from synthdetect.system.timetable import Part, current, timetable
from synthdetect.tracking.availability import PATIENCE, patience
from synthdetect.tracking.opening import Stopped, open_run, stand_aside
from synthdetect.tracking.queries import child_runs, close_unbegun
from synthdetect.tracking.results import run_result
from synthdetect.tracking.run import Run
from synthdetect.tracking.tags import KIND, MANIFEST, PROCESS
from synthdetect.tracking.views import RESULTS, View

STUDY, STRATEGY, TRIAL, STATE = (
    f"synthdetect.{name}" for name in ("study", "strategy", "trial", "trial_state")
)
"""Tags of a sweep's runs."""

_OPTIONS = "options"
"""User attribute of the baseline's study: the options and data that it was started with."""

_TUNED = "tuned"
"""User attribute of a final fit: the values that tuning found."""

_VIEW = View((f"tags.{STRATEGY}", f"tags.{KIND}", f"tags.{STATE}", *RESULTS, "metrics.trial/value"))
"""The saved view of a sweep's trials and final fits: the final fits first, by their AUC."""

_POLL_SECONDS = 2.0


def sweep(options: SweepOptions) -> dict[str, Any]:
    """Run the sweep command; the name of an existing study continues it.

    Raises:
        UserError: If the options, the data or the storage cannot be used, or if another process
            leads the study.
    """
    prepared_sweep = _prepare(options)
    if options.study.dry_run:
        return {"plan": show_plan(prepared_sweep)}
    study = prepared_sweep.study(BASELINE)
    if options.study.worker:
        _wait_for_leader(study, options.study.study)
    parent_id = _register_options(study, prepared_sweep)
    if options.study.worker:
        stand_aside(parent_id)
        _work(replace(prepared_sweep, parent=Run(parent_id)))
        return {"run_id": parent_id}
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
            f"sweep {options.study.study}",
            kind="sweep",
            tags=labels,
            resume=parent_id,
            tracking=options.tracking,
            view=_VIEW,
        ) as run:
            _queue_first_trials(prepared_sweep)
            study.set_user_attr(tuning.RUN, run.id)  # from here on, workers begin
            led = replace(prepared_sweep, parent=run)
            storage = without_secrets(options.study.storage)
            console.print(f"study {options.study.study} in {storage}")
            announce(run, options, prepared_sweep.prepared)
            _log_sweep(led, run)
            _close_orphans(led, run)
            _work(led)
            conclude(led, run)
    finally:
        if study.user_attrs.get(tuning.PROCESS) == this_process():  # no other has taken over
            study.set_user_attr(tuning.PROCESS, "")
    run.print_pages()
    write_report(run.id)
    return run_result(run.id)


def _prepare(options: SweepOptions) -> Sweep:
    device = resolve_device(options.device, options.model.arch)
    require_folder(Path(options.study.output), "--output")
    require_storage(options.study.storage)
    setting = make_setting(options, device)
    return Sweep(**vars(setting), storage=open_storage(options.study.storage))


def _wait_for_leader(study: optuna.Study, name: str) -> None:
    """Wait until a process has opened the run of a study, since all may be started at once.

    Raises:
        UserError: If none does so while a worker is patient.
    """
    end = time.monotonic() + patience()
    with waiting(f"no process leads the study {name} yet"):
        while not study.user_attrs.get(tuning.RUN):
            if time.monotonic() >= end:
                raise UserError(
                    f"--worker: no process leads a study {name!r} in this --storage. Start one "
                    f"without --worker. (A worker waits for it for {PATIENCE} seconds.)"
                )
            time.sleep(_POLL_SECONDS)


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
    with timetable(()):
        _tune(sweep)
        _run_final_fits(sweep)


def _plan(sweep: Sweep, own: Part) -> None:
    """Plan a trial, and those that no process has begun; others may be at work on some."""
    options, finals = sweep.options, sweep.final_fits()
    fits, studies = finals.get_trials(deepcopy=False), [sweep.study(side) for side in sweep.sides]
    trials = 0 if fits else options.study.trials
    left = [
        _part(sweep, side, "trial", f"{side} {number}")
        for side, study in zip(sweep.sides, studies, strict=True)
        for number in range(trials - tuning.begun(study) + tuning.count_waiting(study))
    ]
    queued = tuning.count_waiting(finals)
    count = queued if fits else sum(map(len, sweep.splits.final)) * len(sweep.sides)
    left += [_part(sweep, BASELINE, "final", f"final {number}") for number in range(count)]
    at_work = sum(map(tuning.count_running, [finals, *studies]))
    current().plan([own, *left], processes=at_work)


def _part(sweep: Sweep, side: str, kind: str, title: str) -> Part:
    """Return a trial as a part of the sweep, whose work is measured in epochs."""
    epochs = sweep.options.optim.epochs
    if kind == "final":
        return Part(title, epochs, kind)
    return Part(title, epochs * len(sweep.splits.tuning), f"tune {side}")


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
        if tuning.count_waiting(study) or tuning.begun(study) < rounds:
            _run_trial(sweep, side, study)
            has_run = True
    return has_run


def _wait_for_others(sweep: Sweep) -> bool:
    """Wait for a while if other processes still tune, since their trials may fail and be retried.

    Returns:
        Whether other processes still tune.
    """
    studies = [sweep.study(side) for side in sweep.sides]
    if not any(map(tuning.count_running, studies)):
        return False
    with waiting("other processes tune"):
        while any(map(tuning.count_running, studies)):
            if any(map(tuning.count_waiting, studies)):
                break
            time.sleep(_POLL_SECONDS)
            for study in studies:
                _recover(sweep, study)
    return True


def _recover(sweep: Sweep, study: optuna.Study) -> None:
    if not sweep.options.study.worker:
        tuning.recover(study)


def _space(sweep: Sweep, side: str) -> Mapping[str, SearchParameter]:
    return space(side, sweep.options.optim.lr, sweep.options.optim.epochs)


def _queue_first_trials(sweep: Sweep) -> None:
    """Queue the first trial of each side, before any worker could do the same."""
    for side in sweep.sides:
        study = sweep.study(side)
        if not study.get_trials(deepcopy=False):
            study.enqueue_trial(first_values(_space(sweep, side)))


def _run_trial(sweep: Sweep, side: str, study: optuna.Study) -> None:
    parameters = _space(sweep, side)
    seed = sweep.options.optim.seed

    def objective(trial: Trial) -> float:
        tuning.draw_by_number(study, trial, sampler=sweep.options.study.sampler, seed=seed)
        tuned = tuning.suggest(trial, parameters)
        options = sweep.training(side, tuned, tuning_seed(seed))
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
        {"side": side, "division": division, "fold": fold}
        for division, folds in enumerate(sweep.splits.final)
        for fold in range(len(folds))
        for side in sweep.sides
    ]
    if not sweep.options.study.worker:
        queued = {_final_fit(trial) for trial in study.get_trials(deepcopy=False)}
        tuned = {side: sweep.best_values(side) for side in sweep.sides}  # once, for all folds
        for fit in planned:
            if tuple(fit.values()) not in queued:
                study.enqueue_trial(fit, user_attrs={**fit, _TUNED: tuned[fit["side"]]})
    while True:
        with waiting("other processes run the last final fits"):
            while not (ready := _ready(sweep, study, planned)):
                time.sleep(_POLL_SECONDS)
        if ready == "over":
            return
        tuning.run_one(study, lambda trial: _run_final_fit(sweep, trial))
        _print_outcome(study)


def _ready(sweep: Sweep, study: optuna.Study, planned: list[dict[str, Any]]) -> str:
    """Return `run` if a final fit is queued, `over` if none is left, else an empty text."""
    _recover(sweep, study)
    if tuning.count_waiting(study):
        return "run"
    done = {_final_fit(trial) for trial in tuning.settled(study)}
    is_over = done >= {tuple(fit.values()) for fit in planned} or _is_abandoned(sweep)
    return "over" if is_over else ""


def _is_abandoned(sweep: Sweep) -> bool:
    """Whether this process is a worker, and its leader has ended."""
    leader = sweep.study(BASELINE).user_attrs.get(tuning.PROCESS, "")
    return sweep.options.study.worker and (not leader or is_gone(leader))


def _final_fit(trial: FrozenTrial | Trial) -> tuple[Any, ...]:
    """Side, division and fold of a final fit; None each if the trial was not queued as one."""
    return tuple(trial.user_attrs.get(name) for name in ("side", "division", "fold"))


def _run_final_fit(sweep: Sweep, trial: Trial) -> float:
    """Train once and score the test split; the trial's value is the validation AUC."""
    side, division, fold = _final_fit(trial)
    if side is None:  # another process took the queued trial, so that Optuna made a new one
        raise optuna.TrialPruned("taken by another process")
    tuned = trial.user_attrs[_TUNED]
    if tuned is None:
        raise RuntimeError(f"no tuning trial of {side} was completed, so it has no final fit")
    seed = final_seed(sweep.options.optim.seed, division, fold)
    options = sweep.training(side, tuned, seed)
    title = f"{side} fold {fold + 1}"
    if sweep.options.study.seeds > 1:
        title += f" of division {division + 1}"
    with _trial_run(sweep, side, trial, "final", title) as run:
        return fit_finally(run, options, sweep, sweep.device_for(options), division, fold)


# --- runs of trials


@contextmanager
def _trial_run(sweep: Sweep, side: str, trial: Trial, kind: str, title: str) -> Iterator[Run]:
    """Open a trial's run, or resume it, and close it in the state in which the trial ends.

    An interrupted trial keeps its checkpoint, from which a retry resumes.

    Raises:
        TrialPruned: If the trial was stopped early.
    """
    console.print(title, style="bold")
    part = _part(sweep, side, kind, title)
    _plan(sweep, part)
    labels = {
        STUDY: sweep.options.study.study,
        STRATEGY: side,
        TRIAL: str(trial.number),
        "optuna.study": trial.study.study_name,
    }
    resume = trial.user_attrs.get(tuning.RUN, "")
    state = "interrupted"
    try:
        with (
            current().part(part.name, ended_by=Stopped),
            open_run(title, kind=kind, tags=labels, resume=resume, parent=sweep.parent) as run,
        ):
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
    """Print how the last trial ended, unless there was nothing left for it to do."""
    for trial in sorted(tuning.settled(study), key=lambda trial: trial.number)[-1:]:
        if trial.state == TrialState.PRUNED and tuning.RUN not in trial.user_attrs:
            continue
        value = f" with {trial.value:.4f}" if trial.value is not None else ""
        console.print(f"{trial.state.name.lower()}{value}")

"""Trials in a real database: sampling, retries, pruning, failures and counts."""

import socket
import subprocess
import sys
import threading
from functools import partial
from pathlib import Path

import optuna
import pytest
import torch
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.storages import RDBStorage
from optuna.trial import Trial, TrialState
from sqlalchemy import Engine, event

from sweeps import tuning
from sweeps.storage import open_storage
from sweeps.strategies import Choice, FloatRange, IntRange, SearchParameter, space
from synthdetect.system.errors import UserError
from synthdetect.tracking.availability import StoreAway


@pytest.fixture
def storage(tmp_path: Path) -> RDBStorage:
    return open_storage(f"sqlite:///{tmp_path}/optuna.db")


def run(study: optuna.Study, value: float = 0.5) -> None:
    def objective(trial: Trial) -> float:
        tuning.suggest(trial, space("focal", 1e-3, 3))
        return value

    tuning.run_one(study, objective)


def interrupted(trial: Trial) -> float:
    tuning.suggest(trial, space("focal", 1e-3, 3))
    trial.set_user_attr(tuning.RUN, "run 1")
    trial.report(0.6, 1)
    raise KeyboardInterrupt


@pytest.mark.parametrize("sampler", ["tpe", "random"])
def test_opening_a_study_again_does_not_change_what_is_sampled(
    tmp_path: Path, sampler: str
) -> None:
    def values(name: str, *, at_once: bool) -> list[dict[str, object]]:
        storage = open_storage(f"sqlite:///{tmp_path}/{name}.db")
        study = tuning.open_study(storage, "s", sampler=sampler, seed=3)
        for _ in range(6):
            if not at_once:
                storage = open_storage(f"sqlite:///{tmp_path}/{name}.db")
            study = tuning.open_study(storage, "s", sampler=sampler, seed=3)
            run(study)
        return [trial.params for trial in study.trials]

    assert values("a", at_once=True) == values("b", at_once=False)


def test_other_seeds_sample_other_values(storage: RDBStorage) -> None:
    studies = [tuning.open_study(storage, f"s{seed}", seed=seed) for seed in (1, 2)]
    for study in studies:
        run(study)
    first, second = (study.trials[0].params for study in studies)
    assert first != second


def test_search_parameters_become_optuna_distributions(storage: RDBStorage) -> None:
    parameters = {
        "lr": SearchParameter(FloatRange(1e-4, 0.3, log=True), 1e-2),
        "momentum": SearchParameter(FloatRange(0.8, 0.98), 0.9),
        "lookahead_steps": SearchParameter(IntRange(2, 10), 5),
        "arch": SearchParameter(Choice(("efficientnet_b0", "efficientnet_v2_s")), ""),
    }
    study = tuning.open_study(storage, "s")
    trial = study.ask()
    assert tuning.suggest(trial, parameters) == trial.params
    assert trial.distributions == {
        "lr": FloatDistribution(1e-4, 0.3, log=True),
        "momentum": FloatDistribution(0.8, 0.98),
        "lookahead_steps": IntDistribution(2, 10),
        "arch": CategoricalDistribution(("efficientnet_b0", "efficientnet_v2_s")),
    }


def test_a_failed_trial_is_recorded_and_the_study_continues(storage: RDBStorage) -> None:
    study = tuning.open_study(storage, "s")

    def broken(trial: Trial) -> float:
        raise RuntimeError("diverged")

    tuning.run_one(study, broken)
    run(study)
    assert [trial.state for trial in tuning.settled(study)] == [
        TrialState.FAIL, TrialState.COMPLETE,
    ]  # fmt: skip
    tuning.recover(study)
    assert not tuning.count_waiting(study), (
        "a trial that failed because of its values is not retried"
    )


def test_machine_faults_are_retried_a_limited_number_of_times(
    storage: RDBStorage,
) -> None:
    study = tuning.open_study(storage, "s")

    def out_of_memory(trial: Trial) -> float:
        raise torch.OutOfMemoryError("CUDA out of memory")

    for number in range(1, 4):
        with pytest.raises(torch.OutOfMemoryError):
            tuning.run_one(study, out_of_memory)
        assert len(tuning.settled(study)) == (number == 3)
        tuning.recover(study)
    assert not tuning.count_waiting(study)
    assert tuning.begun(study) == 1


def test_an_unreachable_tracking_store_is_retried_without_limit(
    storage: RDBStorage,
) -> None:
    study = tuning.open_study(storage, "s")

    def away(trial: Trial) -> float:
        raise StoreAway("the server does not answer")

    for _ in range(5):
        with pytest.raises(StoreAway):
            tuning.run_one(study, away)
        tuning.recover(study)
    assert tuning.count_waiting(study)
    assert tuning.settled(study) == []


def test_a_retry_is_counted_in_the_place_of_its_first_trial(storage: RDBStorage) -> None:
    study = tuning.open_study(storage, "s")
    with pytest.raises(KeyboardInterrupt):
        tuning.run_one(study, interrupted)
    run(study)
    tuning.recover(study)
    run(study)
    assert [trial.number for trial in tuning.settled(study)] == [2, 1]


def test_an_interrupted_trial_is_retried_once_with_its_values_and_run(
    storage: RDBStorage,
) -> None:
    study = tuning.open_study(storage, "s")
    with pytest.raises(KeyboardInterrupt):
        tuning.run_one(study, interrupted)
    for _ in range(2):
        tuning.recover(study)
    assert [trial.state for trial in study.trials] == [TrialState.FAIL, TrialState.WAITING]
    assert tuning.settled(study) == []
    assert tuning.begun(study) == 1
    run(study)
    (trial,) = tuning.settled(study)
    assert trial.params == study.trials[0].params
    assert trial.user_attrs[tuning.RUN] == "run 1"
    assert trial.intermediate_values == {1: 0.6}
    tuning.recover(study)
    assert len(study.trials) == 2


def test_the_trial_of_a_killed_process_is_retried(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/optuna.db"
    program = (
        "import os, signal\n"
        "from sweeps import tuning\n"
        "from sweeps.storage import open_storage\n"
        f"study = tuning.open_study(open_storage({url!r}), 's')\n"
        "tuning.run_one(study, lambda trial: os.kill(os.getpid(), signal.SIGKILL))\n"
    )
    assert subprocess.run([sys.executable, "-c", program]).returncode == -9
    study = tuning.open_study(open_storage(url), "s")
    assert [trial.state for trial in study.trials] == [TrialState.RUNNING]
    tuning.recover(study)
    assert [trial.state for trial in study.trials] == [TrialState.FAIL, TrialState.WAITING]


@pytest.mark.parametrize("sampler", ["tpe", "random"])
def test_interruptions_do_not_change_what_is_sampled(tmp_path: Path, sampler: str) -> None:
    storage = open_storage(f"sqlite:///{tmp_path}/optuna.db")

    def values(name: str, interruptions: set[int]) -> list[dict[str, object]]:
        """Values of six trials, where those with these numbers are interrupted three times each."""
        for number in range(6):
            for progress in range(3) if number in interruptions else ():
                _interrupt(tuning.open_study(storage, name, sampler=sampler, seed=3), progress)
                tuning.recover(tuning.open_study(storage, name))
            run(tuning.open_study(storage, name, sampler=sampler, seed=3))
        return [trial.params for trial in tuning.settled(tuning.open_study(storage, name))]

    assert values("disturbed", {0, 2, 5}) == values("undisturbed", set())


def _interrupt(study: optuna.Study, progress: int) -> None:
    """Leave a trial as a process does that is killed.

    It had taken the trial (0), sampled half of the values (1), or started to train (2).
    """
    trial = study.ask()
    trial.set_user_attr(tuning.PROCESS, f"{socket.gethostname()} 0 0.00")
    parameters = list(space("focal", 1e-3, 3).items())
    tuning.suggest(trial, dict(parameters[: len(parameters) * progress // 2]))
    if progress == 2:
        trial.set_user_attr(tuning.RUN, "run")


def test_a_trial_without_a_recorded_process_is_retried_after_a_grace_period(
    storage: RDBStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = tuning.open_study(storage, "s")
    study.ask()
    tuning.recover(study)
    assert tuning.count_running(study), "its process may be about to be recorded"
    monkeypatch.setattr(tuning, "GRACE", -1)
    tuning.recover(study)
    assert not tuning.count_running(study)
    assert tuning.count_waiting(study)


def test_a_queued_retry_has_no_recorded_process(storage: RDBStorage) -> None:
    study = tuning.open_study(storage, "s")
    with pytest.raises(KeyboardInterrupt):
        tuning.run_one(study, interrupted)
    tuning.recover(study)
    assert tuning.PROCESS not in study.trials[1].user_attrs
    trial = study.ask()  # by another process, which is not recorded yet
    tuning.recover(study)
    assert study.trials[trial.number].state == TrialState.RUNNING


def test_a_kill_between_failing_a_trial_and_queueing_its_retry_loses_nothing(
    storage: RDBStorage,
) -> None:
    study = tuning.open_study(storage, "s")
    trial = study.ask()
    study.tell(trial, state=TrialState.FAIL)
    tuning.recover(study)
    assert tuning.count_waiting(study)


def test_a_running_trial_is_not_retried(storage: RDBStorage) -> None:
    study = tuning.open_study(storage, "s")

    def objective(trial: Trial) -> float:
        tuning.recover(study)
        assert tuning.count_running(study)
        assert not tuning.count_waiting(study)
        return 0.5

    tuning.run_one(study, objective)
    assert [trial.state for trial in study.trials] == [TrialState.COMPLETE]


def test_only_the_best_third_is_not_pruned(storage: RDBStorage) -> None:
    study = tuning.open_study(storage, "s", prune=True)

    def objective(trial: Trial, level: float) -> float:
        for step in range(1, 13):
            trial.report(level, step)
            if trial.should_prune():
                raise optuna.TrialPruned
        return level

    for level in (0.9, 0.8, 0.1, 0.95, 0.92, 0.93, 0.91):
        tuning.run_one(study, partial(objective, level=level))
    ended = {
        trial.number: max(trial.intermediate_values)
        for trial in study.trials
        if trial.state == TrialState.PRUNED
    }
    # Of two to five trials the best continues, of six and seven the best two.
    assert ended == {1: 3, 2: 3, 4: 3, 5: 9, 6: 3}


def test_an_unusable_storage_is_named_without_its_password() -> None:
    with pytest.raises(UserError) as caught:
        open_storage("postgresql://team:secret@localhost:1/none")
    assert "secret" not in str(caught.value)
    assert "postgresql://***@localhost:1/none" in str(caught.value)


@pytest.mark.parametrize("table", ["studies", "trials", "alembic_version"])
def test_a_database_is_made_whole_or_not_at_all(tmp_path: Path, table: str) -> None:
    url = f"sqlite:///{tmp_path}/optuna.db"

    def interrupt(_: object, cursor: object, statement: str, *rest: object) -> None:
        if f"CREATE TABLE {table}" in statement:
            raise KeyboardInterrupt

    event.listen(Engine, "after_cursor_execute", interrupt)
    try:
        with pytest.raises(KeyboardInterrupt):
            open_storage(url)
    finally:
        event.remove(Engine, "after_cursor_execute", interrupt)
    assert list(tmp_path.iterdir()) == []
    assert tuning.open_study(open_storage(url), "first").trials == []


def test_no_queued_trial_is_taken_twice(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/optuna.db"
    study = tuning.open_study(open_storage(url), "shared")
    for number in range(60):
        study.enqueue_trial({}, user_attrs={"number": number})
    taken: list[int] = []
    start = threading.Barrier(4)

    def work() -> None:
        own = tuning.open_study(open_storage(url), "shared")
        start.wait()
        for _ in range(15):
            taken.append(own.ask().number)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(taken) == list(range(60))

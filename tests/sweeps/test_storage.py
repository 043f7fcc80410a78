"""The database of the studies: what is refused, and what several processes do at once."""

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from optuna.trial import Trial, TrialState

from sweeps import tuning
from sweeps.storage import open_storage, require_storage
from sweeps.strategies import space
from synthdetect.system.databases import with_driver
from synthdetect.system.errors import UserError
from tests.deploy.postgres import Postgres, postgres

PASSWORD = "not-to-be-seen"


@pytest.mark.parametrize("url", ["journal:///file", "grpc://host:13000", "redis://host"])
def test_a_storage_without_a_heartbeat_is_refused_with_the_reason(url: str) -> None:
    with pytest.raises(UserError, match="has no heartbeat"):
        require_storage(url)


@pytest.mark.parametrize(
    "url", [f"postgresql://team:{PASSWORD}@host/x", f"postgresql://host/x?password={PASSWORD}"]
)
def test_a_password_that_mlflow_has_recorded_is_refused(
    monkeypatch: pytest.MonkeyPatch, url: str
) -> None:
    monkeypatch.setenv("MLFLOW_RUN_ID", "0123")
    with pytest.raises(UserError, match=r"run 0123.*change the password.*PGPASSWORD") as caught:
        require_storage(url)
    assert PASSWORD not in str(caught.value)


def test_an_address_gets_the_driver_that_the_extra_installs() -> None:
    assert with_driver("postgresql://u@h/x") == "postgresql+psycopg://u@h/x"
    for url in ("postgresql+asyncpg://u:p@h/x", "sqlite:///x.db"):
        assert with_driver(url) == url


def test_a_heartbeat_that_cannot_be_sent_ends_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    storage = open_storage(f"sqlite:///{tmp_path}/optuna.db")
    study = tuning.open_study(storage, "s")
    trial = study.ask()
    with storage.engine.begin() as connection:
        connection.exec_driver_sql("drop table trial_heartbeats")
    storage.record_heartbeat(trial._trial_id)
    assert "No sign of life" in capsys.readouterr().out


@pytest.mark.parametrize("sampler", ["tpe", "random"])
def test_trials_that_begin_at_once_draw_what_they_would_one_after_the_other(
    tmp_path: Path, sampler: str
) -> None:
    parameters = space("focal", 1e-3, 3)

    def draw(trial: Trial) -> dict[str, object]:
        tuning.draw_by_number(trial.study, trial, sampler=sampler, seed=3)
        return tuning.suggest(trial, parameters)

    storage = open_storage(f"sqlite:///{tmp_path}/optuna.db")
    opened = [tuning.open_study(storage, "many", sampler=sampler, seed=3) for _ in range(3)]
    at_once = [draw(trial) for trial in [study.ask() for study in opened]]
    in_turn = []
    for _ in range(3):
        study = tuning.open_study(storage, "one", sampler=sampler, seed=3)
        trial = study.ask()
        in_turn.append(tuning.suggest(trial, parameters))
        study.tell(trial, 0.5)
    assert at_once == in_turn
    assert len({str(values) for values in at_once}) == 3


@pytest.fixture(scope="module")
def server() -> Iterator[Postgres]:
    with postgres(user="team", password=PASSWORD) as running:
        yield running


@pytest.fixture
def url(server: Postgres, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A new database of PostgreSQL, as a user writes its address."""
    monkeypatch.setenv("PGPASSWORD", PASSWORD)
    server.create("optuna")
    yield server.local("optuna").replace("+psycopg", "")
    server.execute("drop database optuna with (force)")


@pytest.mark.long
def test_processes_that_start_at_once_make_one_database_and_share_its_trials(url: str) -> None:
    workers, trials = 6, 60
    start = threading.Barrier(workers)
    taken: list[int] = []
    errors: list[Exception] = []

    def work() -> None:
        try:
            start.wait()
            own = tuning.open_study(open_storage(url), "shared")
            if start.wait() == 0:
                for number in range(trials):
                    own.enqueue_trial({}, user_attrs={"number": number})
            start.wait()
            for _ in range(trials // workers):
                taken.append(own.ask().number)
        except Exception as error:
            errors.append(error)
            start.abort()

    threads = [threading.Thread(target=work) for _ in range(workers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert sorted(taken) == list(range(trials))


@pytest.mark.long
def test_a_trial_of_another_host_is_given_up_by_its_heartbeat_alone(
    url: str, server: Postgres
) -> None:
    study = tuning.open_study(open_storage(url), "s")

    def elsewhere(trial: Trial) -> float:
        trial.set_user_attr(tuning.PROCESS, "elsewhere 1 0.00")  # no such process is here
        tuning.recover(study)
        assert tuning.count_running(study) == 1
        server.execute("update trial_heartbeats set heartbeat = now() - interval '119 s'", "optuna")
        tuning.recover(study)
        assert tuning.count_running(study) == 1
        server.execute("update trial_heartbeats set heartbeat = now() - interval '121 s'", "optuna")
        tuning.recover(study)
        return 0.5

    # The process of the trial was alive, and is told.
    with pytest.raises(RuntimeError, match="given up meanwhile"):
        tuning.run_one(study, elsewhere)
    assert [trial.state for trial in study.trials] == [TrialState.FAIL, TrialState.WAITING]


@pytest.mark.long
def test_a_wrong_password_is_refused_and_not_shown(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PGPASSWORD", "another-one")
    with pytest.raises(UserError, match="password authentication failed") as caught:
        open_storage(url)
    assert "another-one" not in str(caught.value)

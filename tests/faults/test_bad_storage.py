"""Databases that cannot be opened, or are of another program or version: a study's and MLflow's."""

import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path

import numpy as np
import optuna
import pytest

from tests.conftest import STORE
from tests.faults.conftest import TINY, Refused

SWEEP = ("sweep", "--dry-run=true", "--strategies=focal", *TINY)
OWN = "Give a database of its own"

Make = Callable[[Path], object]


def executed(*statements: str) -> Make:
    """A database in which these were executed."""

    def make(file: Path) -> None:
        with sqlite3.connect(file) as database:
            for statement in statements:
                database.execute(statement)
        database.close()

    return make


def study(file: Path) -> None:
    """Optuna's database, as it makes it."""
    optuna.storages.RDBStorage(f"sqlite:///{file}")


def tracking(file: Path) -> None:
    """MLflow's, as it is in the working folder."""
    if not file.exists():
        shutil.copy(file.with_name(STORE), file)


def then(*makes: Make) -> Make:
    return lambda file: [make(file) for make in makes]


def cut(share: float) -> Make:
    return lambda file: file.write_bytes(file.read_bytes()[: int(file.stat().st_size * share)])


NO_DATABASES: dict[str, tuple[Make, str]] = {
    "text": (lambda file: file.write_text("no database" * 100), "not a database"),
    "random bytes": (lambda file: file.write_bytes(np.random.default_rng(0).bytes(9000)), "not a"),
    "a database that is cut": (then(study, cut(0.3)), "malformed"),
    "a database of which 100 bytes are left": (
        then(study, lambda file: file.write_bytes(file.read_bytes()[:100])), "",
    ),
    "a folder": (Path.mkdir, "is a folder"),
    "a link to a device": (lambda file: file.symlink_to("/dev/zero"), ""),
    "another program's": (executed("create table users(id int)"), "it holds users"),
    "another program's with a table of the same name": (
        executed("create table studies(id int)", "create table runs(id int)"), "it holds runs",
    ),
}  # fmt: skip

STUDIES: dict[str, tuple[Make, str]] = {
    **NO_DATABASES,
    "MLflow's": (tracking, "no database of Optuna"),
    "Optuna's without a table": (then(study, executed("drop table trials")), "no database of"),
    "Optuna's of a later version": (
        then(study, executed("update alembic_version set version_num = 'v99.0.0'")), "schema",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", STUDIES)
def test_a_studys_database_is_refused_and_left_as_it_is(refused: Refused, case: str) -> None:
    """A file that is no database, another program's, or of another version, for a study."""
    make, named = STUDIES[case]
    make(refused.folder / "study.db")
    refused(*SWEEP, "--storage=sqlite:///study.db", named=("--storage", named))


@pytest.mark.parametrize(
    "storage",
    ["", "nonsense", "study.db", "/study.db", "sqlite://", "sqlite:///", "sqlite:///:memory:",
     "sqlite:////dev/null", "sqlite:////dev/null/x", "sqlite:///gone/x.db", "redis://x",
     "mysql://x/y", "postgresql://u:secret@localhost:1/x", "postgresql://", "file:study.db",
     "http://localhost:1", "://", "sqlite:study.db", "journal:///x"],
)  # fmt: skip
def test_a_storage_that_is_none_is_refused(refused: Refused, storage: str) -> None:
    """A storage that names no database, one that is not there, or one in memory."""
    message = refused(*SWEEP, f"--storage={storage}", named=("--storage", "Give"))
    assert "secret" not in message


@pytest.mark.parametrize("study", ["../x", "a/b", "", "a b", ".", "a'b", "\x1b[2J"])
def test_a_studys_name_that_is_no_files_is_refused(refused: Refused, study: str) -> None:
    """A study's name that is no file's."""
    refused(*SWEEP, f"--study={study}", named=("--study",))


@pytest.mark.parametrize("strategies", ["nosuch", "focal,focal", "focal,nosuch", "../x"])
def test_strategies_that_are_not_there_are_refused(refused: Refused, strategies: str) -> None:
    """Strategies that are unknown, or one twice."""
    refused("sweep", *TINY, f"--strategies={strategies}", named=("--strategies", "focal"))


STORES: dict[str, tuple[Make, str]] = {
    **NO_DATABASES,
    "Optuna's": (study, "no database of MLflow"),
    "MLflow's without a table": (then(tracking, executed("drop table runs")), "no database of"),
    "MLflow's of another version": (
        then(tracking, executed("update alembic_version set version_num = 'ffff'")), "schema",
    ),
}  # fmt: skip

TRACKED = {
    "train": ("train", *TINY),
    "cv": ("cv", *TINY),
    "resume": ("train", "--resume=0123"),
    "audit": ("audit",),
    "predict": ("predict", "--model=0123", "--data=sample"),
    "evaluate": ("evaluate", "--model=models:/a/1", "--data=sample"),
    "report": ("report", "0123"),
    "promote": ("promote", "a", "1"),
    "sweep": SWEEP,
}


@pytest.mark.parametrize("case", STORES)
@pytest.mark.parametrize("command", ["train", "report"])
def test_a_tracking_store_is_refused_and_left_as_it_is(
    refused: Refused, monkeypatch: pytest.MonkeyPatch, command: str, case: str
) -> None:
    """A file that is no database, another program's, or of another version, for MLflow."""
    make, named = STORES[case]
    make(refused.folder / "store.db")
    # MLflow remembers stores by their address, so that one of another test must not have the same.
    refused.track(monkeypatch, f"sqlite:///{refused.folder / 'store.db'}")
    refused(*TRACKED[command], named=("MLFLOW_TRACKING_URI", named))


@pytest.mark.parametrize("uri", ["nonsense://x", "sqlite://", "sqlite:////dev/null/x.db"])
@pytest.mark.parametrize("command", TRACKED)
def test_every_command_says_at_once_that_a_store_cannot_be_used(
    refused: Refused, monkeypatch: pytest.MonkeyPatch, command: str, uri: str
) -> None:
    """A tracking store that is not to be had, for each command."""
    refused.track(monkeypatch, uri)
    refused(*TRACKED[command], named=("MLFLOW_TRACKING_URI: ",))

"""Optuna's database: one file for the processes of one machine, or PostgreSQL for several machines.

Optuna's other storages, the journal and the one behind gRPC, have no heartbeat. A trial whose
machine is gone would stay RUNNING in them for ever, so they are refused.
"""

import os
import sqlite3
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from optuna.exceptions import ExperimentalWarning
from optuna.storages import RDBStorage
from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.engine import make_url
from sqlalchemy.exc import SQLAlchemyError

from synthdetect.system.console import console
from synthdetect.system.databases import new_database, require_database, with_driver
from synthdetect.system.errors import UserError
from synthdetect.system.redaction import without_secrets

HEARTBEAT, GRACE = 30, 120
"""Seconds between two signs of life of a trial, and without one after which it is given up."""

_WITHOUT_HEARTBEAT = ("journal", "grpc", "redis")
_LOCK = 0x73796E74  # of PostgreSQL's advisory locks: "synt"
_HINT = (
    "Give a database of its own: sqlite:///FILE, or postgresql://HOST/NAME with the extra "
    "postgresql installed."
)

# Of heartbeats.
warnings.filterwarnings("ignore", category=ExperimentalWarning)


class _Storage(RDBStorage):
    """A storage whose heartbeats outlive an outage of the database.

    An error would end the thread that sends them, and the trial, which goes on, would be given up
    and begun a second time.
    """

    def record_heartbeat(self, trial_id: int) -> None:
        try:
            super().record_heartbeat(trial_id)
        except Exception as error:  # Optuna's, SQLAlchemy's and the drivers' are an open set
            reason = without_secrets(str(error).splitlines()[0] if str(error) else repr(error))
            console.print(f"No sign of life could be sent to --storage: {reason}", style="yellow")


def require_storage(url: str) -> None:
    """Check, without changing anything, that a database can hold Optuna's studies.

    Raises:
        UserError: If it cannot, or if `mlflow run` has recorded its password.
    """
    if url.partition(":")[0].lower() in _WITHOUT_HEARTBEAT:
        raise UserError(
            f"--storage: {without_secrets(url)} is of a kind that has no heartbeat in Optuna: the "
            f"trial of a machine that is gone would never be taken up again. {_HINT}"
        )
    _require_no_recorded_password(url)
    own = {"studies", "trials", "version_info"}
    require_database(url, "--storage", program="Optuna", tables=own, instead=_HINT)


def _require_no_recorded_password(url: str) -> None:
    """Check that MLflow has not recorded a password, as it does with every parameter of a project.

    Raises:
        UserError: If it has.
    """
    run_id = os.environ.get("MLFLOW_RUN_ID")
    try:
        parsed = make_url(url)
    except (SQLAlchemyError, ValueError):
        return  # `require_database` says why
    if run_id and (parsed.password or "password" in parsed.query):
        raise UserError(
            f"--storage: `mlflow run` has recorded this address with its password, as the "
            f"parameter `storage` of run {run_id}. Delete that run with `mlflow gc`, change the "
            "password, and give it as PGPASSWORD or in ~/.pgpass, not in the address."
        )


def open_storage(url: str) -> RDBStorage:
    """Open Optuna's database.

    A trial whose process sends no heartbeat any more is failed, so that it can be retried.

    Raises:
        UserError: If the database cannot be opened.
    """
    require_storage(url)
    is_file = url.startswith("sqlite")
    options = {"connect_args": {"timeout": 60}} if is_file else {"pool_pre_ping": True}
    try:
        url = with_driver(url)
        with _alone(url), new_database(url) as new:  # Optuna makes its tables one by one
            if new:
                RDBStorage(new).engine.dispose()
            storage = _Storage(
                url, engine_kwargs=options, heartbeat_interval=HEARTBEAT, grace_period=GRACE
            )
        if is_file:
            _lock_from_the_start(storage.engine)
        return storage
    except UserError:
        raise
    except Exception as error:  # SQLAlchemy's and the drivers' are an open set
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(
            f"--storage: {without_secrets(url)} cannot be opened: {reason.rstrip('.')}. {_HINT}"
        ) from error


@contextmanager
def _alone(url: str) -> Iterator[None]:
    """Let one process at a time make the tables in PostgreSQL, which has no such lock itself."""
    if make_url(url).get_backend_name() != "postgresql":
        yield
        return
    engine = create_engine(url)
    try:
        with engine.connect() as connection:
            connection.exec_driver_sql(f"SELECT pg_advisory_lock({_LOCK})")
            yield
    finally:
        engine.dispose()  # which gives the lock back


def _lock_from_the_start(engine: Engine) -> None:
    """Let every transaction on SQLite take the lock for writing when it begins.

    Optuna reads a trial's state `FOR UPDATE` before it takes the trial, which SQLite ignores, so
    that two processes could take the same one. (The events are SQLAlchemy's recipe for pysqlite.)
    """

    def without_own_begin(connection: sqlite3.Connection, _: object) -> None:
        connection.isolation_level = None

    def begin(connection: Connection) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE")

    event.listen(engine, "connect", without_own_begin)
    event.listen(engine, "begin", begin)
    engine.dispose()  # the connections that are open already

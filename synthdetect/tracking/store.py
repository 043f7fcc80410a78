"""Whether runs can be recorded where MLflow is told to, before anything is done."""

import os
from contextlib import suppress
from pathlib import Path

import mlflow
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient
from sqlalchemy.engine import make_url
from sqlalchemy.exc import SQLAlchemyError

from synthdetect.system.databases import require_database
from synthdetect.system.errors import UserError
from synthdetect.system.redaction import without_secrets

VARIABLE = "MLFLOW_TRACKING_URI"
_DATABASES = ("sqlite", "postgresql", "mysql", "mssql")
_INSTEAD = (
    f"Set {VARIABLE} to a database of MLflow's own, such as sqlite:///mlflow.db, or a server."
)


def tracking_uri() -> str:
    """Return the URI of the tracking store without secrets."""
    return without_secrets(mlflow.get_tracking_uri())


def make_store() -> None:
    """Make the SQLite database of a tracking store that is not there, whole or not at all.

    MLflow builds it in many steps, and cannot go on with one that was left in the middle of them.
    """
    uri = mlflow.get_tracking_uri()
    database = make_url(uri).database if uri.startswith("sqlite:") else None
    if not database or database == ":memory:" or Path(database).exists():
        return
    file = Path(database).absolute()
    file.parent.mkdir(parents=True, exist_ok=True)
    temporary = file.with_name(f".{file.name}.{os.getpid()}.tmp")
    try:
        MlflowClient(f"sqlite:///{temporary}").search_experiments(max_results=1)
        with suppress(FileExistsError):  # another process was faster
            os.link(temporary, file)
    finally:
        temporary.unlink(missing_ok=True)


def require_store() -> None:
    """See that the tracking store can be used; one that is not there yet is not made.

    A server is not asked: it may be long in answering that it is gone.

    Raises:
        UserError: it cannot be used.
    """
    uri = mlflow.get_tracking_uri()
    is_database = uri.startswith(_DATABASES)
    if is_database:
        tables = {"experiments", "runs"}
        if not require_database(uri, VARIABLE, program="MLflow", tables=tables, instead=_INSTEAD):
            return
    try:
        client = MlflowClient()
        if is_database:
            client.search_experiments(max_results=1)  # looks at the version of the schema
    except (MlflowException, SQLAlchemyError) as error:
        reason = str(error).splitlines()[0].rstrip(".")
        raise UserError(
            f"{VARIABLE}: {without_secrets(uri)} cannot be used: {reason}. {_INSTEAD}"
        ) from error

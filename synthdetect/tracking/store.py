"""The tracking store that MLflow is set to use: its URI, and whether it can be used."""

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
    """Make the SQLite database of the tracking store if it does not exist, atomically.

    MLflow makes it in many steps, and cannot use one that was left unfinished.
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
    """Check that the tracking store can be used, without making one that does not exist.

    No request is sent to a server, since one that is away may take long to fail.

    Raises:
        UserError: If the store cannot be used.
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
            client.search_experiments(max_results=1)  # checks the version of the schema
    except (MlflowException, SQLAlchemyError) as error:
        reason = str(error).splitlines()[0].rstrip(".")
        raise UserError(
            f"{VARIABLE}: {without_secrets(uri)} cannot be used: {reason}. {_INSTEAD}"
        ) from error

"""The tracking store that MLflow is set to use: its URI, and whether it can be used."""

import mlflow
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient
from sqlalchemy.exc import SQLAlchemyError

from synthdetect.system.databases import new_database, require_database, with_driver
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


def is_server() -> bool:
    """Whether the tracking store is a server, which has the UI itself."""
    return mlflow.get_tracking_uri().startswith(("http://", "https://"))


def make_store() -> None:
    """Make the SQLite database of the tracking store if it does not exist, atomically.

    MLflow makes it in many steps, and cannot use one that was left unfinished.
    """
    with new_database(mlflow.get_tracking_uri(), parents=True) as url:
        if url:
            MlflowClient(url).search_experiments(max_results=1)


def require_store() -> None:
    """Check that the tracking store can be used, without making one that does not exist.

    No request is sent to a server, since one that is away may take long to fail.

    Raises:
        UserError: If the store cannot be used.
    """
    uri = mlflow.get_tracking_uri()
    is_database = uri.startswith(_DATABASES)
    if uri.startswith("postgresql://") and with_driver(uri) != uri:
        raise UserError(
            f"{VARIABLE}: MLflow takes the driver psycopg2 for {without_secrets(uri)}. Write "
            "postgresql+psycopg:// in place of postgresql://."
        )
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

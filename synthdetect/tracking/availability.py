"""Whether the tracking store can be reached, and waiting for it while it cannot.

A store is away while its server does not answer or answers with a server error, or while another
process has locked its SQLite database. A store that refuses a request is not away.
"""

import os
import time
from collections.abc import Callable
from typing import Any, TypeVar, cast

import mlflow
import requests
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import (
    INTERNAL_ERROR,
    INVALID_PARAMETER_VALUE,
    RESOURCE_DOES_NOT_EXIST,
    TEMPORARILY_UNAVAILABLE,
    ErrorCode,
)
from mlflow.tracking import MlflowClient
from mlflow.utils.credentials import get_default_host_creds
from mlflow.utils.rest_utils import http_request

from synthdetect.system.console import console
from synthdetect.system.errors import UserError
from synthdetect.system.redaction import without_secrets
from synthdetect.system.timetable import duration
from synthdetect.tracking.store import is_server, tracking_uri

PATIENCE = "SYNTHDETECT_PATIENCE"
"""Environment variable: seconds to wait for a tracking store that is away (default: 600)."""

PAUSE = 2.0
"""Seconds between two attempts to reach the store, and the timeout of a look at its server."""

_SERVER_ERRORS = {ErrorCode.Name(INTERNAL_ERROR), ErrorCode.Name(TEMPORARILY_UNAVAILABLE)}
# MLflow calls an id of the wrong form an invalid parameter.
_ABSENT = {ErrorCode.Name(RESOURCE_DOES_NOT_EXIST), ErrorCode.Name(INVALID_PARAMETER_VALUE)}

Result = TypeVar("Result")
Client = TypeVar("Client")
Retry = Callable[[Callable[[], Any]], Any]

# MLflow's own defaults would block a training for four minutes a request.
os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "30")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
# A server that keeps artifacts in S3 would send its clients there, which they may not reach.
os.environ.setdefault("MLFLOW_ENABLE_PROXY_MULTIPART_DOWNLOAD", "false")
os.environ.setdefault("MLFLOW_ENABLE_PROXY_MULTIPART_UPLOAD", "false")


class StoreAway(Exception):
    """The tracking store was away for longer than `SYNTHDETECT_PATIENCE` allows."""


def retry(
    action: Callable[[], Result], advice: str = "Repeat the command when the store is back."
) -> Result:
    """Call a function that needs the tracking store, again and again while the store is away.

    Args:
        action: The function. It may be called several times, so it must be idempotent.
        advice: What to do if the store does not come back, for the error message.

    Returns:
        What the function returns.

    Raises:
        StoreAway: If the store is away for longer than `SYNTHDETECT_PATIENCE` allows.
        UserError: If `SYNTHDETECT_PATIENCE` is not a number of seconds.
    """
    seconds = patience()
    end = time.monotonic() + seconds
    failure: Exception | None = None
    while True:
        try:
            if failure is None:
                return action()
            if answers():
                result = action()
                waited = time.monotonic() - end + seconds
                console.print(f"The tracking store is back after {duration(waited)}.")
                return result
        except Exception as error:
            if not is_away(error):
                raise
            if failure is None and seconds:
                warn_away(error, f"Waiting for it, up to {seconds:g} s.")
            failure = error
        if time.monotonic() >= end:
            raise StoreAway(f"{_described(failure)} {advice}") from failure
        time.sleep(PAUSE)


def patience() -> float:
    """Return the seconds to wait for a tracking store that is away, or for another process.

    Raises:
        UserError: If `SYNTHDETECT_PATIENCE` is not a number of seconds.
    """
    text = os.environ.get(PATIENCE) or "600"
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not seconds >= 0:
        raise UserError(f"{PATIENCE}={text}: give a number of seconds, 0 or more.")
    return seconds


def retrying(client: Client, retry: Retry = retry) -> Client:
    """A client of a store each of whose calls is retried while the store is away."""

    class Retrying:
        def __getattr__(self, name: str) -> Any:
            method = getattr(client, name)

            def call(*arguments: Any, **options: Any) -> Any:
                return retry(lambda: method(*arguments, **options))

            return call

    return cast(Client, Retrying())


def waiting_client() -> MlflowClient:
    """A client of the tracking store whose calls wait while the store is away."""
    return retrying(MlflowClient())


def warn_away(error: Exception, consequence: str) -> None:
    """Print that the store is away, and what follows from it."""
    console.print(f"{_described(error)} {consequence}", style="bold yellow")


def _described(error: Exception | None) -> str:
    return f"The tracking store {tracking_uri()} is away ({reason_of(error)})."


def reason_of(error: BaseException | None) -> str:
    """The first line of an error's message, without secrets."""
    text = str(error) or type(error).__name__
    return without_secrets(text.splitlines()[0].rstrip("."))[:300]


def require_answer() -> None:
    """Look whether the store answers.

    Raises:
        MlflowException: If it does not. `is_away` is true of this exception.
    """
    if not answers():
        raise MlflowException("the server does not answer", TEMPORARILY_UNAVAILABLE)


def is_away(error: Exception) -> bool:
    """Whether an error means that the store cannot be reached, rather than that it refuses."""
    if isinstance(error, requests.RequestException):
        return error.response is None or error.response.status_code >= 500
    if not isinstance(error, MlflowException) or error.error_code not in _SERVER_ERRORS:
        return False
    if is_server():
        return True
    # MLflow gives a locked SQLite database the same code as, for example, a full disk.
    is_file = mlflow.get_tracking_uri().startswith("sqlite")
    return error.error_code == ErrorCode.Name(TEMPORARILY_UNAVAILABLE) and (
        not is_file or "is locked" in str(error)
    )


def is_absent(error: MlflowException) -> bool:
    """Whether an error means that the store does not have what was asked for."""
    return error.error_code in _ABSENT


def answers() -> bool:
    """Whether the tracking server answers within 2 s. A store that is no server always does."""
    if not is_server():
        return True
    ask: Callable[..., requests.Response] = http_request  # with MLflow's own TLS and tokens
    credentials: Callable[[str], object] = get_default_host_creds
    try:
        response = ask(
            credentials(mlflow.get_tracking_uri()), "/health", "GET",
            max_retries=0, timeout=PAUSE, raise_on_status=False,
        )  # fmt: skip
    except MlflowException:
        return False
    return response.status_code < 500

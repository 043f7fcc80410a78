"""What a run has to say while the tracking store is away: kept on disk, delivered in order, once.

Metrics, parameters, tags and the final status never make a run wait: they go to a file, line after
line, and are delivered when the store is back. Whatever else needs the store waits for it. To
deliver a line twice changes nothing, since each metric keeps the time at which it was measured, so
a process may be killed at any moment.
"""

import fcntl
import json
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, TypeVar, cast

import mlflow
import requests
from mlflow.entities import Metric, Param, RunTag
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
from synthdetect.system.files import replace_atomically
from synthdetect.system.redaction import without_secrets

FOLDER = Path("undelivered")
"""In the working folder: a folder a run, of what its store has not got yet."""

PATIENCE = "SYNTHDETECT_PATIENCE"
"""Environment variable: seconds to wait for a store that is away; 600 unless given."""

_ABOUT, _LINES, _LOCK = "about.json", "lines.jsonl", "lock"
_SERVER_ERRORS = {ErrorCode.Name(INTERNAL_ERROR), ErrorCode.Name(TEMPORARILY_UNAVAILABLE)}
# The second is what MLflow says of a name that could be no run's.
_ABSENT = {ErrorCode.Name(RESOURCE_DOES_NOT_EXIST), ErrorCode.Name(INVALID_PARAMETER_VALUE)}
_PAUSE = 2.0  # seconds between looks whether a store is back, and the most that a look may take
_BATCH_LIMIT = 100

Result = TypeVar("Result")

# A server that hangs or is gone must not hold a training for MLflow's four minutes a request.
os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "30")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")


class StoreAway(Exception):
    """The tracking store did not come back in time; what was to be said is kept on disk."""


@dataclass(frozen=True)
class Line:
    """Something to say of a run that need not be said at once.

    Attributes:
        metrics: arguments of `mlflow.entities.Metric`, each with its time.
        params: by name.
        tags: by name.
        status: that the run has ended with, or empty.
        ended: when, in milliseconds since 1970.
    """

    metrics: Sequence[Mapping[str, Any]] = ()
    params: Mapping[str, str] = field(default_factory=dict)
    tags: Mapping[str, str] = field(default_factory=dict)
    status: str = ""
    ended: int = 0

    def send(self, client: MlflowClient, run_id: str) -> None:
        """Say it, at most a hundred things at once, as MLflow wants it."""
        entries = [
            *(Param(k, v) for k, v in self.params.items()),
            *(RunTag(k, v) for k, v in self.tags.items()),
            *(Metric(**metric) for metric in self.metrics),
        ]
        for begin in range(0, len(entries), _BATCH_LIMIT):
            part = entries[begin : begin + _BATCH_LIMIT]
            client.log_batch(
                run_id,
                params=[entry for entry in part if isinstance(entry, Param)],
                tags=[entry for entry in part if isinstance(entry, RunTag)],
                metrics=[entry for entry in part if isinstance(entry, Metric)],
            )
        if self.status:
            client.set_terminated(run_id, self.status, self.ended)


class Outbox:
    """One run's way to the store, which may be away.

    Attributes:
        folder: of what waits; there only while something does, or while `synthdetect sync` has
            still to see to the run.
    """

    def __init__(self, run_id: str, client: MlflowClient | None = None) -> None:
        self._run_id = run_id
        self._client = client or MlflowClient()
        self.folder = FOLDER.absolute() / run_id
        self._next_look = 0.0

    @property
    def is_empty(self) -> bool:
        """Whether nothing waits."""
        return not (self.folder / _LINES).exists()

    def send(self, line: Line) -> None:
        """Say something now, or keep it if the store is away."""
        if not self.try_to_deliver():
            self.keep(line)
            return
        try:
            line.send(self._client, self._run_id)
        except Exception as error:
            if not is_away(error):
                raise
            self._tell(error, "what the run has to say is kept meanwhile")
            self.keep(line)

    def insist(self, action: Callable[[], Result]) -> Result:
        """Do what needs the store, after all that was kept; waits while the store is away.

        Args:
            action: that may be tried again.

        Raises:
            StoreAway: it has not come back in time.
        """
        end = time.monotonic() + float(os.environ.get(PATIENCE) or 600)
        told = False
        while True:
            try:
                self.deliver()
                return action()
            except Exception as error:
                if not is_away(error):
                    raise
                if time.monotonic() > end:
                    raise StoreAway(self._parting(error)) from error
                if not told:
                    self._tell(error, f"waiting for it up to {end - time.monotonic():.0f} s")
                    told = True
                time.sleep(_PAUSE)

    def deliver(self, *, forget: bool = True) -> None:
        """Say all that was kept, in its order, and keep it no longer.

        Args:
            forget: whether nothing else is to be seen to of the run.

        Raises:
            MlflowException: the store is away, or refuses; everything is still kept.
        """
        if self.is_empty:
            return
        if not answers():
            raise MlflowException("the server does not answer", TEMPORARILY_UNAVAILABLE)
        with self._locked():
            for line in self._lines():
                line.send(self._client, self._run_id)
            (self.folder / _LINES).unlink(missing_ok=True)  # or another process was faster
            if forget:
                self._remove()
        console.print(f"run {self._run_id}: the tracking store has got all that was kept")

    def forget(self) -> None:
        """Have `synthdetect sync` see to the run no more, unless something waits again."""
        if self.folder.exists():
            with self._locked():
                if self.is_empty:
                    self._remove()

    def try_to_deliver(self) -> bool:
        """Whether nothing waits any more. Asks seldom, so that what hangs holds nothing up."""
        if self.is_empty:
            return True
        if time.monotonic() < self._next_look:
            return False
        began = time.monotonic()
        try:
            self.deliver()
        except Exception as error:
            if not is_away(error):
                raise
        took = time.monotonic() - began
        self._next_look = time.monotonic() + max(_PAUSE, 20 * took)
        return self.is_empty

    def keep(self, line: Line) -> None:
        """Keep something to say later."""
        with self._locked():
            if self.is_empty:
                store = without_secrets(mlflow.get_tracking_uri())
                with replace_atomically(self.folder / _ABOUT) as file:
                    file.write_text(json.dumps({"run_id": self._run_id, "store": store}))
            with (self.folder / _LINES).open("ab+") as lines:
                if lines.tell() and not _ends_a_line(lines):
                    lines.write(b"\n")  # else what a kill cut short would spoil this one too
                lines.write(json.dumps(vars(line)).encode() + b"\n")
                lines.flush()
                os.fsync(lines.fileno())

    def _lines(self) -> Iterator[Line]:
        """What waits, but for what a kill cut short: its epoch is trained again."""
        if not self.is_empty:
            for text in (self.folder / _LINES).read_bytes().splitlines():
                try:
                    line = json.loads(text)
                except ValueError:
                    continue
                yield Line(**line)

    def _remove(self) -> None:
        """Remove the folder, its lock last: without it, another process may begin to write."""
        for file in sorted(self.folder.iterdir(), key=lambda file: file.name == _LOCK):
            file.unlink(missing_ok=True)
        with suppress(OSError):  # it has begun
            self.folder.rmdir()

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Keep other processes from what waits; makes the folder."""
        path = self.folder / _LOCK
        while True:
            self.folder.mkdir(parents=True, exist_ok=True)
            try:
                file = path.open("w")
            except FileNotFoundError:  # another process has just removed the folder
                continue
            with file:
                fcntl.flock(file, fcntl.LOCK_EX)
                if path.exists() and os.path.samestat(os.fstat(file.fileno()), path.stat()):
                    yield
                    return

    def _tell(self, error: Exception, what: str) -> None:
        store = without_secrets(mlflow.get_tracking_uri())
        reason = without_secrets(str(error).splitlines()[0])[:300]
        console.print(f"{store} is away ({reason}); {what}", style="bold yellow")

    def _parting(self, error: Exception) -> str:
        store = without_secrets(mlflow.get_tracking_uri())
        reason = str(error).splitlines()[0].rstrip(".")
        return (
            f"the tracking store {store} is away ({reason}). What run {self._run_id} had to say is "
            f"kept in {self.folder}, its checkpoints in the folder that --output names. When the "
            "store is back: synthdetect sync"
        )


def patient(client: MlflowClient, outbox: Outbox) -> MlflowClient:
    """A client whose every call waits for a store that is away, and comes after what was kept."""

    class Patient:
        def __getattr__(self, name: str) -> Any:
            method = getattr(client, name)

            def call(*arguments: Any, **options: Any) -> Any:
                return outbox.insist(lambda: method(*arguments, **options))

            return call

    return cast(MlflowClient, Patient())


def waiting() -> dict[str, str]:
    """The store's URI, without secrets, by the id of each run that `sync` is to see to."""
    found = {}
    for file in sorted(FOLDER.glob(f"*/{_ABOUT}")):
        about = json.loads(file.read_text())
        found[str(about["run_id"])] = str(about["store"])
    return found


def is_away(error: Exception) -> bool:
    """Whether an error says that the store cannot be reached now, not that it refuses."""
    if isinstance(error, requests.RequestException):
        return error.response is None or error.response.status_code >= 500
    if not isinstance(error, MlflowException) or error.error_code not in _SERVER_ERRORS:
        return False
    if _is_server():
        return True
    # SQLite: another process holds it. A full disk, say, has the same code.
    is_file = mlflow.get_tracking_uri().startswith("sqlite")
    return error.error_code == ErrorCode.Name(TEMPORARILY_UNAVAILABLE) and (
        not is_file or "is locked" in str(error)
    )


def is_absent(error: MlflowException) -> bool:
    """Whether an error says that the store does not have what was asked for."""
    return error.error_code in _ABSENT


def answers() -> bool:
    """Whether a server is there at all, found out faster than a request that hangs would."""
    if not _is_server():
        return True
    ask: Callable[..., requests.Response] = http_request  # MLflow's, with its TLS and tokens
    credentials: Callable[[str], object] = get_default_host_creds
    try:
        response = ask(
            credentials(mlflow.get_tracking_uri()), "/health", "GET",
            max_retries=0, timeout=_PAUSE, raise_on_status=False,
        )  # fmt: skip
    except MlflowException:
        return False
    return response.status_code < 500


def _is_server() -> bool:
    return mlflow.get_tracking_uri().startswith(("http://", "https://"))


def _ends_a_line(file: BinaryIO) -> bool:
    file.seek(-1, os.SEEK_END)
    return file.read(1) == b"\n"

"""A living and a dead process, and a tracking store that is away."""

import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import mlflow
import psutil
import pytest

from synthdetect.tracking.availability import PATIENCE


@pytest.fixture
def workspace(workspace: Path, empty_store: Path) -> Path:
    """An empty working folder with an empty tracking store."""
    shutil.copy(empty_store, workspace)
    return workspace


def _named(process: "subprocess.Popen[bytes]") -> str:
    start = psutil.Process(process.pid).create_time() - psutil.boot_time()
    return f"{socket.gethostname()} {process.pid} {start:.2f}"


@pytest.fixture
def alive() -> Iterator[str]:
    """The name of a process that is running."""
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    yield _named(process)
    process.kill()
    process.wait()


@pytest.fixture
def dead() -> str:
    """The name of a process that was killed."""
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    name = _named(process)
    process.kill()
    process.wait()
    return name


@pytest.fixture
def away(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The URI of a tracking server that does not exist, for which nobody waits."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        uri = f"http://127.0.0.1:{probe.getsockname()[1]}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setenv(PATIENCE, "0")
    before = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri(uri)
    yield uri
    mlflow.set_tracking_uri(before)

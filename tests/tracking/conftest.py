"""Processes that once worked on a run, and a store that is away."""

import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import mlflow
import psutil
import pytest


def _named(process: "subprocess.Popen[bytes]") -> str:
    start = psutil.Process(process.pid).create_time() - psutil.boot_time()
    return f"{socket.gethostname()} {process.pid} {start:.2f}"


@pytest.fixture
def alive() -> Iterator[str]:
    """A process that lives."""
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    yield _named(process)
    process.kill()
    process.wait()


@pytest.fixture
def dead() -> str:
    """A process that was killed."""
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    name = _named(process)
    process.kill()
    process.wait()
    return name


@pytest.fixture
def away(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A tracking server that nobody listens for."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        uri = f"http://127.0.0.1:{probe.getsockname()[1]}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    before = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri(uri)
    yield uri
    mlflow.set_tracking_uri(before)

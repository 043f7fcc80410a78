"""MLflow's UI as a process of this machine, on the store that the commands use."""

import os
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO

import mlflow

from synthdetect.system.errors import UserError

_SECONDS = 300.0  # until which a slow machine has started it


@contextmanager
def serving(port: int) -> Iterator["subprocess.Popen[bytes]"]:
    """Start the UI on the loopback address, wait until it answers, and stop it at the end.

    Args:
        port: The port; a free one.

    Yields:
        The process of the server.

    Raises:
        UserError: If it does not start.
    """
    command = [
        sys.executable, "-m", "mlflow", "ui", "--host", "127.0.0.1", "--port", str(port),
        "--workers", "1",
    ]  # fmt: skip
    # The jobs are those of generative AI; without them it starts faster.
    # The addresses of the stores may have passwords, which all users see in a command line.
    settings = {
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        **os.environ,
        "MLFLOW_BACKEND_STORE_URI": mlflow.get_tracking_uri(),
        "MLFLOW_REGISTRY_STORE_URI": mlflow.get_registry_uri(),
    }
    with tempfile.TemporaryFile() as log:
        server = subprocess.Popen(command, env=settings, stdout=log, stderr=log)
        try:
            _wait(server, port, log)
            yield server
        finally:
            server.terminate()
            server.wait()


def _wait(server: "subprocess.Popen[bytes]", port: int, log: IO[bytes]) -> None:
    end = time.monotonic() + _SECONDS
    while time.monotonic() < end:
        if server.poll() is not None:
            log.seek(0)
            said = log.read().decode(errors="replace").strip()[-2000:]
            raise UserError(
                f"mlflow ui ended at its start with exit status {server.returncode}: {said}"
            )
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=2):
                return
        except OSError:
            time.sleep(0.2)
    raise UserError(f"mlflow ui did not answer within {_SECONDS:g} s.")

"""The example of a registry webhook, against a real MLflow server on loopback."""

import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import mlflow
import pytest
from cryptography.fernet import Fernet
from mlflow.tracking import MlflowClient

from synthdetect.tracking.models import promote
from tests.conftest import ROOT

SECRET = "a secret"

pytestmark = pytest.mark.long


class Servers(NamedTuple):
    registry: MlflowClient
    receiver: str
    heard: Path


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_for(url: str) -> None:
    end = time.monotonic() + 300
    while time.monotonic() < end:
        try:
            urllib.request.urlopen(url, timeout=5).close()
            return
        except urllib.error.HTTPError:
            return  # it answers
        except OSError:
            time.sleep(0.2)
    raise AssertionError(f"{url} does not answer")


@pytest.fixture
def servers(workspace: Path, tmp_path: Path) -> Iterator[Servers]:
    """A tracking server that may call loopback by http, and the receiver of the example."""
    stored = MlflowClient(f"sqlite:///{workspace}/mlflow.db")
    stored.create_registered_model("detector")
    stored.create_model_version("detector", str(tmp_path))
    heard, port, receiver = tmp_path / "heard.txt", free_port(), free_port()
    environment = {
        **os.environ,
        "MLFLOW_WEBHOOK_ALLOWED_SCHEMES": "http",
        "MLFLOW_WEBHOOK_ALLOW_PRIVATE_IPS": "true",
        "MLFLOW_WEBHOOK_SECRET_ENCRYPTION_KEY": Fernet.generate_key().decode(),
        "WEBHOOK_SECRET": SECRET,
        "HEARD": str(heard),
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
    }
    note = "import os; print(os.environ['MODEL'], file=open(os.environ['HEARD'], 'a'))"
    commands = [
        [sys.executable, "-m", "mlflow", "server", "--backend-store-uri",
         f"sqlite:///{workspace}/mlflow.db", "--host", "127.0.0.1", "--port", str(port),
         "--workers", "1"],
        [sys.executable, str(ROOT / "docs" / "webhook.py"), "--port", str(receiver), "--",
         sys.executable, "-c", note],
    ]  # fmt: skip
    processes = [
        subprocess.Popen(command, env=environment, start_new_session=True) for command in commands
    ]
    before = mlflow.get_tracking_uri()
    try:
        for url in (f"http://127.0.0.1:{port}/health", f"http://127.0.0.1:{receiver}/"):
            wait_for(url)
        mlflow.set_tracking_uri(f"http://127.0.0.1:{port}")
        yield Servers(MlflowClient(), f"http://127.0.0.1:{receiver}/", heard)
    finally:
        mlflow.set_tracking_uri(before)
        for process in processes:
            os.killpg(process.pid, 15)
            process.wait()


def test_a_new_champion_runs_the_command_once_and_a_forged_request_does_not(
    servers: Servers,
) -> None:
    client = servers.registry
    hook = client.create_webhook(
        name="champion", url=servers.receiver, events=["model_version_alias.created"], secret=SECRET
    )
    assert client.test_webhook(hook.webhook_id).response_status == 204
    client.set_registered_model_alias("detector", "other", "1")  # not the champion
    promote("detector", "1")
    end = time.monotonic() + 120
    while not servers.heard.exists() or not servers.heard.read_text().endswith("\n"):
        assert time.monotonic() < end
        time.sleep(0.1)
    data = {"name": "forged", "alias": "champion", "version": "1"}
    event = {"entity": "model_version_alias", "action": "created", "data": data}
    headers = {"X-MLflow-Timestamp": str(int(time.time())), "X-MLflow-Delivery-Id": "1",
               "X-MLflow-Signature": "v1,AAAA"}  # fmt: skip
    forged = urllib.request.Request(servers.receiver, json.dumps(event).encode(), headers)
    with pytest.raises(urllib.error.HTTPError, match="401"):
        urllib.request.urlopen(forged, timeout=10)
    assert servers.heard.read_text() == "models:/detector/1\n"

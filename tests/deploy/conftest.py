"""What `docs/deploy/compose.yaml` starts, without containers: each service on a host of its own."""

import os
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import boto3
import mlflow
import pandas as pd
import pytest
import requests
from cryptography.fernet import Fernet
from mlflow.tracking import MlflowClient

from tests.conftest import ROOT
from tests.deploy.compose import DEPLOY, services
from tests.deploy.hosts import Host, Network, network
from tests.deploy.postgres import Postgres, postgres, program

SECRETS = {
    "POSTGRES_PASSWORD": "of-the-database-4711",
    "S3_KEY": "key-of-the-store",
    "S3_SECRET": "secret-of-the-store-4712",
    "ADMIN_PASSWORD": "of-the-admin-4713",
    "FLASK_KEY": "of-the-forms-4714",
    "WEBHOOK_KEY": Fernet.generate_key().decode(),
}
USER, PASSWORD = "rosa", "of-rosa-in-person-4715"
_PATH = f"{Path(sys.executable).parent}:{os.environ['PATH']}"


@dataclass(frozen=True)
class Team:
    """The services of a team, and its hosts.

    Attributes:
        network: What joins them.
        folder: A folder that all hosts see.
        postgres: The database server.
        server: The host of the tracking server.
        uri: Address of the tracking server for this machine; the hosts know it as `mlflow`.
        data: Manifest of a few images.
    """

    network: Network
    folder: Path
    postgres: Postgres
    server: Host
    uri: str
    data: Path

    def client(self) -> MlflowClient:
        """A client of the tracking server, as a member of the team."""
        mlflow.set_tracking_uri(self.uri)
        return MlflowClient(self.uri)

    def address(self, name: str) -> str:
        """The address of a host."""
        lines = (self.folder / "hosts").read_text().splitlines()
        return next(line.split()[0] for line in lines if line.endswith(f" {name}"))

    def keys(self) -> list[str]:
        """The keys of all objects of the S3 store, to which otherwise only the server speaks."""
        s3 = boto3.client(
            "s3", endpoint_url=f"http://{self.address('store')}:7070", region_name="us-east-1",
            aws_access_key_id=SECRETS["S3_KEY"], aws_secret_access_key=SECRETS["S3_SECRET"],
        )  # fmt: skip
        return [one["Key"] for one in s3.list_objects_v2(Bucket="mlflow")["Contents"]]

    def environment(self, host: Host) -> dict[str, str]:
        """The environment of a command on a host, with a cache of its own."""
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("MLFLOW_", "PG"))}
        return {
            **kept, "PATH": _PATH, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1",
            "MLFLOW_TRACKING_URI": "http://mlflow:5000", "MLFLOW_TRACKING_USERNAME": USER,
            "MLFLOW_TRACKING_PASSWORD": PASSWORD, "PGPASSWORD": SECRETS["POSTGRES_PASSWORD"],
            "MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING": "false",
            "SYNTHDETECT_CACHE": str(self.folder / host.name / "cache"),
        }  # fmt: skip

    def host(self, name: str) -> tuple[Host, Path]:
        """Add a host; returns it with a working folder of its own."""
        folder = self.folder / name
        folder.mkdir()
        return self.network.add(name), folder


def wait_for(process: "subprocess.Popen[bytes]", output: Path, text: str) -> None:
    """Wait until a command has printed a text."""
    end = time.monotonic() + 1800
    while not output.exists() or text not in output.read_text():
        assert process.poll() is None, output.read_text()
        assert time.monotonic() < end, output.read_text()
        time.sleep(0.1)


@pytest.fixture(scope="session")
def team(tmp_path_factory: pytest.TempPathFactory, small_table: pd.DataFrame) -> Iterator[Team]:
    """The services of `compose.yaml`, by its words; Debian's PostgreSQL and moto's S3 store."""
    folder = tmp_path_factory.mktemp("team")
    data = folder / "small.csv"
    small_table.to_csv(data, index=False)
    etc = folder / "etc"
    (etc / "mlflow").mkdir(parents=True)  # as server.Dockerfile lays it
    for name in ("auth.ini", "bucket.py"):
        (etc / "mlflow" / name).write_text((DEPLOY / name).read_text())
    with network(folder) as net:
        database, store, server = net.add("postgres"), net.add("store"), net.add("mlflow", etc)
        parts = services(
            {**SECRETS, "WORKERS": "1", "ALLOWED_HOSTS": f"mlflow:5000,{server.address}:5000"}
        )
        account = parts["postgres"]["environment"]
        processes = [
            store.start(
                sys.executable, "-m", "moto.server", "-H", "0.0.0.0", "-p", "7070",
                folder=folder, environment={"PATH": _PATH}, output=folder / "store.txt",
            )
        ]  # fmt: skip
        with postgres(
            user=account["POSTGRES_USER"], password=account["POSTGRES_PASSWORD"],
            address=database.address, enter=database.enter(processes=False, folder=Path("/")),
        ) as running:  # fmt: skip
            _make_databases(running)
            for name in ("bucket", "mlflow"):
                part = parts[name]
                output = folder / f"{name}.txt"
                process = server.start(
                    *shlex.split(part["command"]), folder=folder, output=output,
                    environment={**part["environment"], "PATH": _PATH, "HOME": str(folder)},
                )  # fmt: skip
                processes.append(process)
                if name == "bucket":
                    assert process.wait(timeout=120) == 0, output.read_text()
            uri = f"http://{server.address}:5000"
            _wait_for_server(uri, processes[-1], folder / "mlflow.txt")
            admin = account_of(parts["mlflow"]["environment"])
            made = requests.post(
                f"{uri}/api/2.0/mlflow/users/create", auth=admin, timeout=60,
                json={"username": USER, "password": PASSWORD},
            )  # fmt: skip
            assert made.status_code == 200, made.text
            before = mlflow.get_tracking_uri()
            with pytest.MonkeyPatch.context() as patch:
                patch.setenv("MLFLOW_TRACKING_USERNAME", USER)
                patch.setenv("MLFLOW_TRACKING_PASSWORD", PASSWORD)
                patch.setenv("PGPASSWORD", SECRETS["POSTGRES_PASSWORD"])
                yield Team(net, folder, running, server, uri, data)
            mlflow.set_tracking_uri(before)
            server.cut_power()
            store.cut_power()
            for process in processes:
                process.wait()


def account_of(environment: dict[str, str]) -> tuple[str, str]:
    """Name and password of the admin."""
    return (
        environment["MLFLOW_AUTH_ADMIN_USERNAME"], environment["MLFLOW_AUTH_ADMIN_PASSWORD"],
    )  # fmt: skip


def _make_databases(server: Postgres) -> None:
    """Execute the file that the container executes when it is new."""
    subprocess.run(
        [program("psql"), "--quiet", "--set=ON_ERROR_STOP=1", f"--host={server.folder}",
         f"--port={server.port}", f"--username={server.user}", "--dbname=postgres",
         f"--file={DEPLOY / 'databases.sql'}"],
        check=True, env={**os.environ, "PGPASSWORD": server.password},
    )  # fmt: skip


def _wait_for_server(uri: str, process: "subprocess.Popen[bytes]", output: Path) -> None:
    end = time.monotonic() + 1800
    while True:
        assert process.poll() is None, output.read_text()
        assert time.monotonic() < end, output.read_text()
        try:
            if requests.get(f"{uri}/health", timeout=10).status_code == 200:
                return
        except requests.RequestException:
            time.sleep(0.5)

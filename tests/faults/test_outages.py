"""The tracking server goes away in mid-training: a real one on loopback, and a real training."""

import contextlib
import http.server
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pandas as pd
import pytest
import requests
from mlflow.entities import Run as MlflowRun
from mlflow.tracking import MlflowClient

from synthdetect.tracking.availability import PATIENCE
from synthdetect.tracking.run import Run

pytestmark = pytest.mark.long

EPOCHS = 8
OPTIONS = ["--data=small.csv", "--arch=mobilenet_v3_large", "--image-size=32", "--weights=none",
           f"--epochs={EPOCHS}", f"--patience={EPOCHS}", "--device=cpu", "--workers=0"]  # fmt: skip
MEASURED_TIME = ("system/", "images_per_second", "train/seconds", "val/seconds")


class Server:
    """A tracking server on a port of its own, over one store."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = int(probe.getsockname()[1])
        self.uri = f"http://127.0.0.1:{self.port}"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, and wait until it answers."""
        log = (self._folder / "server.txt").open("ab")
        self._process = subprocess.Popen(
            [sys.executable, "-m", "mlflow", "server", "--backend-store-uri",
             f"sqlite:///{self._folder}/mlflow.db", "--artifacts-destination",
             str(self._folder / "artifacts"), "--host", "127.0.0.1", "--port", str(self.port),
             "--workers", "1"],
            cwd=self._folder, stdout=log, stderr=log, start_new_session=True,
        )  # fmt: skip
        for _ in range(720):
            with contextlib.suppress(requests.RequestException):
                if requests.get(f"{self.uri}/health", timeout=2).status_code == 200:
                    return
            time.sleep(0.25)
        raise AssertionError((self._folder / "server.txt").read_text())

    def signal(self, number: int) -> None:
        """Send a signal to it and its workers."""
        if self._process and self._process.poll() is None:
            os.killpg(self._process.pid, number)

    def kill(self) -> None:
        """As a power cut would."""
        self.signal(signal.SIGKILL)
        if self._process:
            self._process.wait()
        for _ in range(100):  # its workers end a moment later
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.port)):
                    return
            time.sleep(0.1)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server that the tests take down and start again."""
    made = Server(tmp_path_factory.mktemp("server"))
    made.start()
    yield made
    made.kill()


@pytest.fixture
def folder(tmp_path: Path, small_table: pd.DataFrame) -> Path:
    """A working folder with a manifest."""
    small_table.groupby(["split", "label"]).head(12).to_csv(tmp_path / "small.csv", index=False)
    return tmp_path


def environment(folder: Path, uri: str, patience: float) -> dict[str, str]:
    return {
        **{k: v for k, v in os.environ.items() if not k.startswith("MLFLOW_")},
        "MLFLOW_TRACKING_URI": uri, "MLFLOW_HTTP_REQUEST_TIMEOUT": "3", "OMP_NUM_THREADS": "1",
        "SYNTHDETECT_CACHE": str(folder / "cache"), PATIENCE: str(patience),
        "MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL": "3600",
    }  # fmt: skip


def begin(
    folder: Path, uri: str, patience: float = 120, resume: str = ""
) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-m", "synthdetect", "train", *OPTIONS, f"--resume={resume}"],
        cwd=folder, env=environment(folder, uri, patience), text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip


def epoch_of(training: "subprocess.Popen[str]", epoch: int) -> str:
    """Wait until a training has said that it ended an epoch; returns its run's id."""
    run_id, said = "", []
    assert training.stdout
    for line in training.stdout:
        said.append(line)
        if line.startswith("run "):
            run_id = line.split()[1]
        if line.startswith(f"epoch   {epoch}/"):
            return run_id
    raise AssertionError(f"no epoch {epoch}: {''.join(said)}")


def said_to_the_end(training: "subprocess.Popen[str]") -> str:
    out, _ = training.communicate(timeout=300)
    return out


def histories(client: MlflowClient, run: MlflowRun) -> dict[str, list[tuple[int, float]]]:
    """Every metric's points in their order, but for those that measure time."""
    names = [n for n in run.data.metrics if not any(word in n for word in MEASURED_TIME)]
    points = {name: client.get_metric_history(run.info.run_id, name) for name in names}
    return {name: [(point.step, point.value) for point in points[name]] for name in names}


def artifacts(client: MlflowClient, run_id: str, path: str = "") -> set[str]:
    found = set()
    for item in client.list_artifacts(run_id, path or None):
        found |= artifacts(client, run_id, item.path) if item.is_dir else {item.path}
    return found


@pytest.fixture(scope="module")
def undisturbed(
    tmp_path_factory: pytest.TempPathFactory, small_table: pd.DataFrame, server: Server
) -> tuple[dict[str, list[tuple[int, float]]], set[str]]:
    """What the same training comes to when nothing happens: metrics, and artifacts' names."""
    folder = tmp_path_factory.mktemp("undisturbed")
    small_table.groupby(["split", "label"]).head(12).to_csv(folder / "small.csv", index=False)
    training = begin(folder, server.uri)
    run_id = epoch_of(training, 1)
    out = said_to_the_end(training)
    assert training.returncode == 0, out
    client = MlflowClient(server.uri)
    return histories(client, client.get_run(run_id)), artifacts(client, run_id)


def require_whole(server: Server, run_id: str, undisturbed: tuple[object, object]) -> None:
    """The run is as if nothing had happened."""
    client = MlflowClient(server.uri)
    run = client.get_run(run_id)
    assert run.info.status == "FINISHED"
    metrics, names = undisturbed
    assert histories(client, run) == metrics
    assert artifacts(client, run_id) == names
    models = client.search_logged_models(["0"], filter_string=f"source_run_id = '{run_id}'")
    assert len(models) == 1


@contextlib.contextmanager
def gone(server: Server) -> Iterator[None]:
    """Nobody listens."""
    server.kill()
    yield
    server.start()


@contextlib.contextmanager
def hanging(server: Server) -> Iterator[None]:
    """It takes requests and never answers."""
    server.signal(signal.SIGSTOP)
    yield
    server.signal(signal.SIGCONT)


@contextlib.contextmanager
def broken(server: Server) -> Iterator[None]:
    """Something in its place answers 500."""
    server.kill()

    class Broken(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_error(500)

        do_POST = do_PATCH = do_PUT = do_GET

        def log_message(self, format: str, *arguments: object) -> None:
            pass

    http.server.ThreadingHTTPServer.allow_reuse_address = True
    instead = http.server.ThreadingHTTPServer(("127.0.0.1", server.port), Broken)
    thread = threading.Thread(target=instead.serve_forever)
    thread.start()
    yield
    instead.shutdown()
    instead.server_close()
    thread.join()
    server.start()


@pytest.mark.parametrize("away", [gone, hanging, broken])
def test_a_training_outlives_an_outage_and_logs_everything_once(
    away: Callable[[Server], contextlib.AbstractContextManager[None]],
    server: Server,
    folder: Path,
    undisturbed: tuple[object, object],
) -> None:
    training = begin(folder, server.uri)
    run_id = epoch_of(training, 2)
    with away(server):
        assert epoch_of(training, EPOCHS) == ""  # the training goes on to its last epoch
    out = said_to_the_end(training)
    assert training.returncode == 0, out
    require_whole(server, run_id, undisturbed)


def test_a_training_that_an_outage_ends_is_completed_by_resuming_it(
    server: Server, folder: Path, undisturbed: tuple[object, object]
) -> None:
    training = begin(folder, server.uri, patience=1)
    run_id = epoch_of(training, 3)
    server.kill()
    out = said_to_the_end(training)
    assert training.returncode == 1
    assert f"--resume {run_id}" in out
    assert "Traceback" not in out
    assert (folder / "runs" / run_id / "best.safetensors").is_file()
    server.start()
    assert MlflowClient(server.uri).get_run(run_id).info.status == "RUNNING"
    resumed = begin(folder, server.uri, resume=run_id)
    out = said_to_the_end(resumed)
    assert resumed.returncode == 0, out
    require_whole(server, run_id, undisturbed)


def test_a_database_that_another_process_has_locked_is_waited_for(workspace: Path) -> None:
    client = MlflowClient()
    run = Run(client.create_run("0").info.run_id)
    history = [{"train/loss": 0.5}, {"train/loss": 0.25}]
    holder = sqlite3.connect("mlflow.db", isolation_level=None)
    holder.execute("begin exclusive")
    run.log_progress(history[:1], {})
    run.log_progress(history, {})
    threading.Timer(3, lambda: os.write(freed, b"x")).start()
    waits, freed = os.pipe()
    os.read(waits, 1)
    holder.execute("rollback")
    run.set_tags({"b": "c"})
    points = client.get_metric_history(run.id, "train/loss")
    assert [(point.step, point.value) for point in points] == [(1, 0.5), (2, 0.25)]
    assert client.get_run(run.id).data.tags["b"] == "c"

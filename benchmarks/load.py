"""Servers of the same detector under the same load, side by side.

    python -m benchmarks.load [--arch resnet18] [--peers FOLDER]

One, eight and sixty-four clients send one image a request, each the next one when it has the
answer. `synthdetect serve` is compared with `mlflow models serve` and, if FOLDER is given, with
LitServe and MLServer, which are installed there, each in an environment of its own that sees the
packages of this one. These two run with as large batches and as long a wait as ours. The servers
take turns, and the others are stopped (SIGSTOP) meanwhile, since an idle server need not be quiet:
LitServe keeps asking its queues.
"""

import argparse
import base64
import http.client
import json
import os
import signal
import socket
import statistics
import subprocess
import sys
import sysconfig
import tempfile
import time
import venv
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import mlflow
import numpy as np

from benchmarks.common import parser, random_detector, report, row_of
from synthdetect.datasets.manifest import load
from synthdetect.detectors.detector import Detector
from synthdetect.serving.batching import BATCH
from synthdetect.tracking.models import log_detector
from synthdetect.tracking.opening import open_run
from synthdetect.training.devices import resolve

ROOT = Path(__file__).parents[1]
OURS = "synthdetect serve"
CLIENTS = (1, 8, 64)
REQUESTS = {1: 60, 8: 160, 64: 256}
AWAKENS = 1.0
"""Seconds for a server that was stopped to do what it has missed."""


class Server(NamedTuple):
    """How to start a server on a port, and how to ask it.

    Attributes:
        command: The command, in which `{port}` stands for the port.
        path: The path of scores.
        ready: A path that is there when the server is ready.
        body: Makes the body of a request of an image in base64.
    """

    command: Sequence[str]
    path: str
    ready: str
    body: Callable[[str], Any]


class Started(NamedTuple):
    """A server that runs, in a process group of its own."""

    server: Server
    port: int
    group: int


def main() -> None:
    arguments = parser("Compare servers under load.", rounds=3)
    arguments.add_argument("--arch", default="resnet18")
    arguments.add_argument("--image-size", type=int, default=224)
    arguments.add_argument("--peers", type=Path, help="folder for the environments of peers")
    given = arguments.parse_args()
    requests = REQUESTS
    if given.smoke:
        given.image_size, given.rounds, requests = 32, 1, {1: 2, 8: 8}
    texts = [base64.b64encode(Path(file).read_bytes()).decode() for file in load("sample").files()]
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        folder, store = Path(name), f"sqlite:///{name}/mlflow.db"
        detector = random_detector(given.arch, given.image_size)
        servers = _servers(folder, store, detector, given)
        started = {
            name: stack.enter_context(_started(server, store, folder / f"{number}.txt"))
            for number, (name, server) in enumerate(servers.items())
        }
        measured = _measure(started, texts, requests, given.rounds)
    rows = []
    for clients in requests:
        for peer in servers:
            if peer == OURS:
                continue
            for what, sign in (("p50", -1), ("p99", -1), ("images/s", 1)):
                pairs = zip(measured[OURS, clients], measured[peer, clients], strict=True)
                ratios = [(ours[what] / other[what]) ** sign for ours, other in pairs]
                key = f"{what.replace('/', '_per_')}_{clients}_{peer.replace(' ', '_')}"
                rows.append(row_of(key, f"{clients} clients: {what}", peer, 1.0, ratios))
    medians = {
        f"{name}, {clients}": {
            what: round(statistics.median(one[what] for one in rounds), 4) for what in rounds[0]
        }
        for (name, clients), rounds in measured.items()
    }
    notes = (
        f"{given.arch} at {given.image_size}; {given.rounds} rounds of "
        f"{', '.join(f'{number} images with {n} clients' for n, number in requests.items())}; "
        f"images of the sample; ratios above 1: {OURS} is faster; medians in s and images/s: "
        f"{medians}"
    )
    report(f"load_{given.arch}", "load", rows, resolve("cpu", "fp32", "auto"), given.output, notes)


def _servers(
    folder: Path, store: str, detector: Detector, given: argparse.Namespace
) -> dict[str, Server]:
    """Return the servers by name, with all that they need in a folder."""
    file = folder / "detector.safetensors"
    detector.save(file)
    kept = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri(store)
    with open_run("served", kind="benchmark", tags={}) as run:
        model = log_detector(run, detector)
    mlflow.set_tracking_uri(kept)

    def protocol(text: str) -> Any:
        return {"inputs": {"image": [text]}}

    ours = [sys.executable, "-m", "synthdetect", "serve", "-m", str(file), "-p", "{port}"]
    servers = {
        OURS: Server(ours, "/invocations", "/ping", protocol),
        "mlflow models serve": Server(
            ["mlflow", "models", "serve", "-m", f"models:/{model.model_id}", "--env-manager",
             "local", "-p", "{port}", "-h", "127.0.0.1"],
            "/invocations", "/ping", protocol,
        ),
    }  # fmt: skip
    if given.peers:
        lit = str(ROOT / "benchmarks" / "servers" / "litserve_server.py")
        python = _environment(given.peers / "litserve", "litserve")
        servers["LitServe"] = Server(
            [python, lit, str(file), "{port}"], "/predict", "/health", lambda text: {"image": text}
        )
        python = _environment(given.peers / "mlserver", "mlserver")
        settings = {
            "name": "detector",
            "implementation": "benchmarks.servers.mlserver_runtime.DetectorRuntime",
            "parameters": {"uri": str(file)},
            "max_batch_size": BATCH,
            "max_batch_time": 0.004,
        }
        (folder / "model-settings.json").write_text(json.dumps(settings))
        servers["MLServer"] = Server(
            [python, "-m", "benchmarks.servers.mlserver_on", str(folder), "{port}"],
            "/v2/models/detector/infer", "/v2/models/detector/ready",
            lambda text: {"inputs": [{"name": "image", "shape": [1], "datatype": "BYTES",
                                      "data": [text]}]},
        )  # fmt: skip
    return servers


def _environment(folder: Path, package: str) -> str:
    """Return the Python of an environment with a package that sees those of this one."""
    python = folder / "bin" / "python"
    if not python.exists():
        venv.create(folder, with_pip=True)
        subprocess.run([python, "-m", "pip", "install", "-q", package], check=True)
        where = Path(sysconfig.get_path("purelib", vars={"base": str(folder)}))
        seen = [sysconfig.get_path("purelib"), str(ROOT)]
        (where / "beside.pth").write_text("\n".join(seen) + "\n")
    return str(python)


def _measure(
    started: dict[str, Started],
    texts: list[str],
    requests: dict[int, int],
    rounds: int,
) -> dict[tuple[str, int], list[dict[str, float]]]:
    """Return the measurements of each round, by server and number of clients."""
    measured: dict[tuple[str, int], list[dict[str, float]]] = {}
    for number in range(rounds + 1):
        for clients, count in requests.items():
            for name, (server, port, group) in started.items():
                bodies = [json.dumps(server.body(text)) for text in texts[:count]]
                with _awake(group):
                    found = _load(port, server.path, bodies, clients)
                if number:  # the first round warms up
                    measured.setdefault((name, clients), []).append(found)
    return measured


@contextmanager
def _awake(group: int) -> Iterator[None]:
    """Let a stopped server go on meanwhile."""
    os.killpg(group, signal.SIGCONT)
    time.sleep(AWAKENS)
    try:
        yield
    finally:
        os.killpg(group, signal.SIGSTOP)


def _load(port: int, path: str, bodies: list[str], clients: int) -> dict[str, float]:
    """Send requests from clients at once, and return seconds of a request and images per second."""
    remaining = iter(bodies)  # shared: whoever is free takes the next one

    def client(_: int) -> list[float]:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=300)
        seconds = []
        for body in remaining:
            began = time.perf_counter()
            connection.request("POST", path, body, {"Content-Type": "application/json"})
            response = connection.getresponse()
            content = response.read()
            if response.status != 200:
                raise RuntimeError(f"status {response.status}: {content[:500]!r}")
            seconds.append(time.perf_counter() - began)
        return seconds

    began = time.perf_counter()
    with ThreadPoolExecutor(clients) as pool:
        seconds = [one for each in pool.map(client, range(clients)) for one in each]
    return {
        "p50": float(np.quantile(seconds, 0.5)),
        "p99": float(np.quantile(seconds, 0.99)),
        "images/s": len(bodies) / (time.perf_counter() - began),
    }


@contextmanager
def _started(server: Server, store: str, log: Path) -> Iterator[Started]:
    """Start a server, and stop it when it is ready. It is ended with the context."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    paths = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "MLFLOW_TRACKING_URI": store, "PYTHONPATH": paths}
    command = [word.format(port=port) for word in server.command]
    with log.open("w") as said:
        process = subprocess.Popen(
            command, env=environment, stdout=said, stderr=said, start_new_session=True
        )
    try:
        for _ in range(600):
            try:
                connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
                connection.request("GET", server.ready)
                if connection.getresponse().status == 200:
                    break
            except OSError:
                pass
            if process.poll() is not None:
                break
            time.sleep(0.2)
        else:
            process.kill()
        if process.poll() is not None:
            raise RuntimeError(f"{' '.join(command)} did not start:\n{log.read_text()[-3000:]}")
        os.killpg(process.pid, signal.SIGSTOP)
        yield Started(server, port, process.pid)
    finally:
        os.killpg(process.pid, signal.SIGCONT)
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(timeout=60)


if __name__ == "__main__":
    main()

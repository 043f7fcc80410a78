"""A server of `mlflow models serve` on loopback against a detector in the process itself.

    python -m benchmarks.serving [--arch resnet18] [--requests 200] [--clients 32]

One client sends one image at a time: the median latency is compared with that of decoding and the
forward pass. Then many clients do: the throughput is compared with that of the bare forward pass of
one image at a time on all cores.
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
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import mlflow
import numpy as np

from benchmarks.common import parser, random_detector, report, row_of
from synthdetect.datasets.manifest import load
from synthdetect.detectors.detector import Detector
from synthdetect.tracking.models import log_detector
from synthdetect.tracking.opening import open_run
from synthdetect.training.devices import resolve


def main() -> None:
    arguments = parser("Measure a server.", rounds=3)
    arguments.add_argument("--arch", default="resnet18")
    arguments.add_argument("--image-size", type=int, default=224)
    arguments.add_argument("--requests", type=int, default=200, help="requests per measurement")
    arguments.add_argument("--clients", type=int, default=32, help="clients at the same time")
    given = arguments.parse_args()
    if given.smoke:
        given.image_size, given.requests, given.clients, given.rounds = 32, 8, 2, 1
    device = resolve("cpu", "fp32", "auto")
    detector = random_detector(given.arch, given.image_size)
    sample = load("sample")
    contents = [Path(file).read_bytes() for file in sample.files()[: given.requests]]
    with tempfile.TemporaryDirectory() as folder:
        kept, store = mlflow.get_tracking_uri(), f"sqlite:///{folder}/mlflow.db"
        mlflow.set_tracking_uri(store)
        with open_run("served", kind="benchmark", tags={}) as run:
            model = log_detector(run, detector)
        with _served(f"models:/{model.model_id}", store, Path(folder)) as port:
            rounds = [_round(given, detector, contents, port) for _ in range(given.rounds + 1)][1:]
        mlflow.set_tracking_uri(kept)
    latency = [one["in process"] / one["one client"] for one in rounds]
    throughput = [one["many clients"] / one["bare"] for one in rounds]
    what = f"{given.arch} at {given.image_size}"
    rows = [
        row_of("latency", f"{what}: one image served, median", "decode and forward in process",
             1 / 1.5, latency),
        row_of("throughput", f"{what}: {given.clients} clients, images/s",
             "bare forward pass of one image", 0.8, throughput),
    ]  # fmt: skip
    shown = {name: round(statistics.median(one[name] for one in rounds), 4) for name in rounds[0]}
    notes = (
        f"{given.rounds} rounds of {given.requests} images of the sample; the first ratio is that "
        f"of the seconds in process to those served; medians: {shown} (s, s, images/s, images/s)"
    )
    report(f"serving_{given.arch}", "serving", rows, device, given.output, notes)


def _round(
    given: argparse.Namespace, detector: Detector, contents: list[bytes], port: int
) -> dict[str, float]:
    """Measure one round.

    Returns:
        `in process` and `one client`: median seconds per image. `many clients` and `bare` (the
        forward pass): images per second.
    """
    payloads = [
        json.dumps({"inputs": {"image": [base64.b64encode(content).decode()]}})
        for content in contents
    ]
    alone = _median(lambda content: detector.score(detector.preprocess(content)[None]), contents)
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    served = _median(lambda payload: _ask(connection, payload), payloads)
    began = time.perf_counter()
    with ThreadPoolExecutor(given.clients) as pool:
        list(
            pool.map(_client, [(port, payloads[n :: given.clients]) for n in range(given.clients)])
        )
    many = len(payloads) / (time.perf_counter() - began)
    square = np.zeros((1, given.image_size, given.image_size, 3), np.uint8)
    began = time.perf_counter()
    for _ in contents:
        detector.score(square)
    bare = len(contents) / (time.perf_counter() - began)
    return {"in process": alone, "one client": served, "many clients": many, "bare": bare}


def _median(work: Any, items: list[Any]) -> float:
    seconds = []
    for item in items:
        began = time.perf_counter()
        work(item)
        seconds.append(time.perf_counter() - began)
    return statistics.median(seconds)


def _client(task: tuple[int, list[str]]) -> None:
    port, payloads = task
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
    for payload in payloads:
        _ask(connection, payload)


def _ask(connection: http.client.HTTPConnection, payload: str) -> None:
    connection.request("POST", "/invocations", payload, {"Content-Type": "application/json"})
    response = connection.getresponse()
    body = response.read()
    if response.status != 200:
        raise RuntimeError(f"status {response.status}: {body[:500]!r}")


@contextmanager
def _served(uri: str, store: str, folder: Path) -> Iterator[int]:
    """Serve a model, and yield the port."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    environment = {
        **os.environ,
        "MLFLOW_TRACKING_URI": store,
        "PYTHONPATH": os.pathsep.join([os.getcwd(), os.environ.get("PYTHONPATH", "")]),
    }
    log = (folder / "server.txt").open("w")
    process = subprocess.Popen(
        ["mlflow", "models", "serve", "-m", uri, "--env-manager", "local", "-p", str(port),
         "-h", "127.0.0.1"],
        env=environment, stdout=log, stderr=log, start_new_session=True,
    )  # fmt: skip
    try:
        for _ in range(400):
            try:
                connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
                connection.request("GET", "/ping")
                if connection.getresponse().status == 200:
                    break
            except OSError:
                time.sleep(0.3)
        else:
            raise RuntimeError((folder / "server.txt").read_text())
        yield port
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait()
        log.close()


if __name__ == "__main__":
    main()

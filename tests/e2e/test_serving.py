"""Tests of `mlflow models serve` with every kind of request that MLflow's protocol has."""

import base64
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
import psutil
import pytest

from tests.e2e.conftest import Platform, end
from tests.faults.load import bomb


@pytest.fixture(scope="module")
def predictions(platform: Platform) -> pd.DataFrame:
    """Offline predictions of a trained model's test images."""
    status = platform.run(
        *platform.direct("train", epochs="1", arch="resnet18_layer2", register="served")
    )
    assert status == 0, platform.output()
    run = platform.latest()
    return pd.read_csv(
        mlflow.artifacts.download_artifacts(
            run_id=run.info.run_id, artifact_path="predictions/test.csv"
        )
    )


@pytest.fixture(scope="module")
def url(platform: Platform, predictions: pd.DataFrame) -> Iterator[str]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    process = platform.start(
        "env", "SYNTHDETECT_SERVE_PORT=tcp://10.0.0.1:5000",  # as Kubernetes may have it
        "mlflow", "models", "serve", "-m", "models:/served@champion", "--env-manager", "local",
        "-p", str(port), "-h", "127.0.0.1",
    )  # fmt: skip
    address = f"http://127.0.0.1:{port}"
    end_of_patience = time.monotonic() + 120
    while True:
        try:
            urllib.request.urlopen(f"{address}/ping", timeout=5)
            break
        except (urllib.error.URLError, OSError):
            assert process.poll() is None, platform.output()
            assert time.monotonic() < end_of_patience, platform.output()
            time.sleep(0.3)
    yield address
    end(process, signal.SIGTERM)


def ask(url: str, payload: Any) -> tuple[int, Any]:
    request = urllib.request.Request(
        f"{url}/invocations",
        data=json.dumps(payload).encode(),
        headers={"Content-Type": "application/json"},
    )
    try:
        with urllib.request.urlopen(request, timeout=60) as response:
            return response.status, json.load(response)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


def encoded(predictions: pd.DataFrame) -> list[str]:
    return [base64.b64encode(Path(p).read_bytes()).decode() for p in predictions["path"]]


SHAPES: dict[str, Callable[[list[str]], dict[str, Any]]] = {
    "dataframe_split": lambda images: {
        "dataframe_split": {"columns": ["image"], "data": [[image] for image in images]}
    },
    "dataframe_records": lambda images: {"dataframe_records": [{"image": i} for i in images]},
    "inputs": lambda images: {"inputs": {"image": images}},
    "instances": lambda images: {"instances": [{"image": image} for image in images]},
}


@pytest.mark.parametrize("shape", SHAPES)
def test_every_payload_shape_gives_the_offline_scores(
    url: str, predictions: pd.DataFrame, shape: str
) -> None:
    status, answer = ask(url, SHAPES[shape](encoded(predictions)))
    assert status == 200, answer
    rows = pd.DataFrame(answer["predictions"])
    np.testing.assert_allclose(rows["probability"], predictions["probability"], atol=1e-5)
    labels = np.where(predictions["predicted"] == 1, "synthetic", "real")
    assert rows["label"].tolist() == labels.tolist()


def test_the_threshold_can_be_given(url: str, predictions: pd.DataFrame) -> None:
    image = encoded(predictions)[:1]
    for threshold, label in ((0.0, "synthetic"), (1.0, "real")):
        payload = {**SHAPES["inputs"](image), "params": {"threshold": threshold}}
        status, answer = ask(url, payload)
        assert status == 200
        assert answer["predictions"][0]["label"] == label
        assert answer["predictions"][0]["threshold"] == threshold


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        ("!!!", "not base64 text"),
        ("", "the file is empty"),
        (base64.b64encode(b"no image").decode(), "not an image of a known format"),
        (base64.b64encode(b"\xff\xd8\xff\xe0 cut").decode(), ""),
    ],
)
def test_what_is_no_image_gets_400_a_short_reason_and_its_row(
    url: str, predictions: pd.DataFrame, bad: str, reason: str
) -> None:
    good = encoded(predictions)[0]
    status, answer = ask(url, SHAPES["dataframe_split"]([good, bad, good]))
    assert status == 400
    assert answer["message"].startswith(f"row 1: {reason}")
    assert len(json.dumps(answer)) < 300
    assert "Traceback" not in json.dumps(answer)
    assert ask(url, SHAPES["inputs"]([good]))[0] == 200  # and it goes on


def test_too_many_pixels_in_small_files_get_400_before_any_is_decoded(url: str) -> None:
    picture = base64.b64encode(bomb(7000)).decode()
    began = time.monotonic()
    status, answer = ask(url, SHAPES["inputs"]([picture] * 256))
    assert status == 400
    assert answer["message"].startswith("more than 1,000,000,000 pixels in all images")
    assert time.monotonic() - began < 20


Server = tuple[str, "subprocess.Popen[bytes]"]


@pytest.fixture(scope="module")
def ours(platform: Platform, predictions: pd.DataFrame) -> Iterator[Server]:
    """The address of `synthdetect serve` with two processes, and the one that started them."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "synthdetect", "serve", "-m", "models:/served@champion"]
    process = platform.start(*command, "-p", str(port), "--processes", "2")
    try:
        platform.wait_for(process, "/docs describes the API")
        yield f"http://127.0.0.1:{port}", process
    finally:
        end(process, signal.SIGTERM)


def answer(address: str, path: str) -> str:
    with urllib.request.urlopen(f"{address}{path}", timeout=120) as response:
        return str(response.read(), "utf-8")


def processes_of(server: "subprocess.Popen[bytes]") -> list[psutil.Process]:
    """The processes in which a server serves."""
    found = []
    for child in psutil.Process(server.pid).children(recursive=True):
        with contextlib.suppress(psutil.Error):  # it has ended
            if "spawn_main" in " ".join(child.cmdline()):
                found.append(child)
    return found


def test_our_server_shows_what_was_measured_of_a_registered_model(
    platform: Platform, ours: Server, predictions: pd.DataFrame
) -> None:
    known = json.loads(answer(ours[0], "/model"))
    generators = set(predictions["generator"].dropna())
    assert {row["generator"] for row in known["measured"]} == generators
    assert {row["split"] for row in known["measured"]} == {"test"}
    unseen = {row["generator"] for row in known["measured"] if not row["trained_on"]}
    assert unseen == {"realcugan_se", "realsr_df2k"}
    assert str(platform.folder) not in json.dumps(known)


def test_the_processes_of_our_server_count_together_and_are_replaced(
    ours: Server, predictions: pd.DataFrame
) -> None:
    address, server = ours
    images = encoded(predictions)[:2]

    def scored() -> list[float]:
        status, found = ask(address, {"inputs": {"image": images}})
        assert status == 200
        return [row["probability"] for row in found["predictions"]]

    answer(address, "/ready")
    with ThreadPoolExecutor(8) as pool:
        for found in pool.map(lambda _: scored(), range(16)):
            np.testing.assert_allclose(found, predictions["probability"][:2], atol=1e-5)
    counts = answer(address, "/metrics")
    assert 'synthdetect_requests_total{path="/invocations",status="200"} 16.0' in counts
    assert "synthdetect_batch_images_sum 32.0" in counts
    before = {process.pid for process in processes_of(server)}
    assert len(before) == 2
    os.kill(min(before), signal.SIGKILL)
    end_of_patience = time.monotonic() + 120
    while len({process.pid for process in processes_of(server)} - {min(before)}) < 2:
        assert time.monotonic() < end_of_patience
        time.sleep(0.3)
    np.testing.assert_allclose(scored(), predictions["probability"][:2], atol=1e-5)


def test_it_listens_on_loopback_alone(url: str) -> None:
    port = int(url.rpartition(":")[2])
    listening = subprocess.run(
        [sys.executable, "-c", "import psutil,sys;print([c.laddr.ip for c in "
         f"psutil.net_connections('tcp') if c.status=='LISTEN' and c.laddr.port=={port}])"],
        capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    assert listening.strip() == "['127.0.0.1']"

"""The limits on a request: read from the environment, and enforced against any client."""

import asyncio
import base64
import contextlib
import http.client
import io
import json
import os
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pandas as pd
import pytest
import torch
import uvicorn
from PIL import Image

from synthdetect.detectors.card import Card
from synthdetect.detectors.detector import Detector
from synthdetect.models.networks import build
from synthdetect.models.spec import ModelSpec
from synthdetect.serving.connections import settings_for
from synthdetect.serving.limits import Guarded, limits_from_environment
from synthdetect.serving.model import Refused, ServedDetector
from synthdetect.serving.options import ServeOptions
from synthdetect.system.errors import UserError


def test_limits_are_read_from_the_environment_and_unknown_ones_are_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("SYNTHDETECT_SERVE_MAX_IMAGES", "7")
    assert limits_from_environment().max_images == 7
    monkeypatch.setenv("SYNTHDETECT_SERVE_MAX_IMAGES", "none")
    with pytest.raises(UserError, match=r"SYNTHDETECT_SERVE.*--max-images"):
        limits_from_environment()
    monkeypatch.setenv("SYNTHDETECT_SERVE_MAX_IMAGES", "7")
    monkeypatch.setenv("SYNTHDETECT_SERVE_MAX_IMAGE", "7")
    with pytest.raises(UserError, match="max-images"):
        limits_from_environment()


@pytest.mark.parametrize(
    "name",
    ["PORT", "SERVICE_HOST", "SERVICE_PORT", "SERVICE_PORT_HTTP", "PORT_5000_TCP",
     "PORT_5000_TCP_ADDR", "PORT_5000_TCP_PORT", "CANARY_SERVICE_HOST", "CANARY_PORT"],
)  # fmt: skip
def test_variables_that_kubernetes_sets_are_ignored(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv(f"SYNTHDETECT_SERVE_{name}", "tcp://10.0.0.1:5000")
    assert limits_from_environment() == ServeOptions()


@pytest.mark.parametrize(
    ("variable", "value", "reason"),
    [
        ("MAX_IMAGES", "4", "more than 4 images"),
        ("MAX_PIXELS", "99", "row 0: 10x10 pixels"),
        ("MAX_TOTAL_PIXELS", "499", "more than 499 pixels in all images"),
    ],
)
def test_a_served_model_enforces_the_limits(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str, reason: str
) -> None:
    monkeypatch.setenv(f"SYNTHDETECT_SERVE_{variable}", value)
    served = _served()
    served.detector.preprocess = _never  # type: ignore[assignment]
    with pytest.raises(Refused, match=reason) as refused:
        served.predict(None, pd.DataFrame({"image": [_image()] * 5}))
    assert refused.value.get_http_status_code() == 400  # type: ignore[no-untyped-call]


def test_a_request_may_have_exactly_as_many_pixels_as_the_limit(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("SYNTHDETECT_SERVE_MAX_TOTAL_PIXELS", "500")
    assert len(_served().predict(None, pd.DataFrame({"image": [_image()] * 5}))) == 5


def test_an_image_that_cannot_be_decoded_is_named_by_its_row() -> None:
    images = [_image()] * 40
    images[35] = _image(cut=30)
    with pytest.raises(Refused, match=r"^row 35: "):
        _served().predict(None, pd.DataFrame({"image": images}))


def test_at_most_one_image_per_core_is_decoded_at_once() -> None:
    served, lock = _served(), threading.Lock()
    square = served.detector.preprocess(base64.b64decode(_image()))
    now, most = 0, 0

    def slow(content: bytes) -> Any:
        nonlocal now, most
        with lock:
            now += 1
            most = max(most, now)
        time.sleep(0.02)
        with lock:
            now -= 1
        return square

    served.detector.preprocess = slow  # type: ignore[assignment]
    cores = os.cpu_count() or 1
    table = pd.DataFrame({"image": [_image()] * 3})
    with ThreadPoolExecutor(cores + 4) as pool:
        list(pool.map(lambda _: served.predict(None, table), range(cores + 4)))
    assert most == cores


def _served() -> ServedDetector:
    torch.manual_seed(0)
    spec = ModelSpec.of("mobilenet_v3_large", 32)
    return ServedDetector(Detector(build(spec), Card(model=spec, geometry="resize")))


def _image(cut: int = 0) -> str:
    """An image of 10x10 pixels as base64 text, without the last `cut` bytes of its file."""
    file = io.BytesIO()
    Image.new("RGB", (10, 10)).save(file, "PNG")
    content = file.getvalue()
    return base64.b64encode(content[: len(content) - cut]).decode()


def _never(content: bytes) -> Any:
    raise AssertionError("decoded")


async def _well(scope: Any, receive: Any, send: Any) -> None:
    """An application that answers 200 to every request."""
    await receive()
    await send({"type": "http.response.start", "status": 200,
                "headers": [(b"content-length", b"2")]})  # fmt: skip
    await send({"type": "http.response.body", "body": b"ok"})


async def _request(
    guarded: Guarded, *parts: bytes, declared: int | None = None, rest: asyncio.Event | None = None
) -> tuple[int, dict[bytes, bytes]]:
    """Send a body, its end once `rest` is set; returns the status and headers of the answer."""
    head = (b"transfer-encoding", b"chunked")
    if declared is not None:
        head = (b"content-length", str(declared).encode())
    coming = [{"type": "http.request", "body": part, "more_body": True} for part in parts]
    sent: list[Any] = []

    async def receive() -> dict[str, Any]:
        if coming:
            return coming.pop(0)
        if rest:
            await rest.wait()
        return {"type": "http.request", "body": b""}

    async def send(message: Any) -> None:
        sent.append(message)

    await guarded({"type": "http", "path": "/invocations", "headers": [head]}, receive, send)
    return sent[0]["status"], dict(sent[0]["headers"])


@pytest.mark.parametrize("declared", [100, None])
def test_clients_that_send_nothing_take_no_memory(declared: int | None) -> None:
    guarded = Guarded(_well, max_body=100, timeout=30)

    async def scene() -> tuple[list[int], list[int]]:
        rest = asyncio.Event()
        idle = [asyncio.create_task(_request(guarded, declared=declared, rest=rest))
                for _ in range(50)]  # fmt: skip
        await asyncio.sleep(0.01)
        good = [(await _request(guarded, b"x" * 100, declared=100))[0] for _ in range(10)]
        rest.set()
        return good, [status for status, _ in await asyncio.gather(*idle)]

    assert asyncio.run(scene()) == ([200] * 10, [200] * 50)


def test_the_memory_of_all_bodies_is_limited() -> None:
    """Eight bodies of the largest size fit; a ninth is refused until they are answered."""
    guarded = Guarded(_well, max_body=100, timeout=30)

    async def scene() -> None:
        rest = asyncio.Event()
        held = [asyncio.create_task(_request(guarded, b"x" * 60, b"x" * 40, rest=rest))
                for _ in range(8)]  # fmt: skip
        await asyncio.sleep(0.01)
        status, headers = await _request(guarded, b"x")
        assert (status, headers[b"retry-after"]) == (503, b"1")
        rest.set()
        assert [status for status, _ in await asyncio.gather(*held)] == [200] * 8
        assert (await _request(guarded, b"x"))[0] == 200

    asyncio.run(scene())


def test_a_body_whose_declared_or_actual_size_is_too_large_is_refused() -> None:
    guarded = Guarded(_well, max_body=100, timeout=30)

    async def scene() -> None:
        never = asyncio.Event()
        assert (await _request(guarded, declared=101, rest=never))[0] == 413
        assert (await _request(guarded, b"x" * 60, b"x" * 41, rest=never))[0] == 413
        for _ in range(10):  # refused bodies take no memory
            assert (await _request(guarded, b"x" * 100))[0] == 200

    asyncio.run(scene())


def test_a_client_that_closes_the_connection_is_not_answered() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        raise AssertionError("asked")

    async def receive() -> dict[str, Any]:
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        raise AssertionError("answered")

    scope = {"type": "http", "path": "/invocations", "headers": [(b"content-length", b"9")]}
    asyncio.run(Guarded(app, max_body=100, timeout=30)(scope, receive, send))


@contextlib.contextmanager
def _server(app: Any, timeout: float) -> Iterator[int]:
    """A server on a port of loopback, in a thread."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        server = uvicorn.Server(settings_for(app, timeout))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        try:
            yield listening.getsockname()[1]
        finally:
            server.should_exit = server.force_exit = True
            thread.join()


def _status(connection: http.client.HTTPConnection) -> int:
    connection.request("GET", "/ping")
    response = connection.getresponse()
    response.read()
    return response.status


@pytest.mark.parametrize("said", [b"", b"GET /ping HT", b"GET /ping HTTP/1.1\r\nHost: a\r\n",
                                  b"GET /ping HTTP/1.1\r\nHost: a\r\n\r\nGET"])  # fmt: skip
def test_the_connection_of_a_client_that_does_not_finish_a_head_is_closed(said: bytes) -> None:
    with _server(_well, 0.5) as port, socket.create_connection(("127.0.0.1", port), 10) as client:
        client.sendall(said[:-2])
        time.sleep(0.2)  # further bytes do not restart the timer
        client.sendall(said[-2:])
        began = time.monotonic()
        while client.recv(1000):
            pass
        assert 0.2 < time.monotonic() - began < 3


def test_a_connection_is_kept_between_requests() -> None:
    with _server(_well, 0.3) as port:
        client = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
        assert _status(client) == 200
        own = client.sock
        time.sleep(0.8)
        assert _status(client) == 200
        assert client.sock is own
        client.close()


def test_the_connection_of_a_client_that_accepts_no_answer_is_closed() -> None:
    async def long(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": bytes(2**26)})

    with _server(long, 0.5) as port, socket.create_connection(("127.0.0.1", port), 10) as client:
        client.sendall(b"GET /ping HTTP/1.1\r\nHost: a\r\n\r\n")
        time.sleep(1.5)
        taken = 0
        with contextlib.suppress(ConnectionResetError):
            while part := client.recv(2**20):
                taken += len(part)
        assert taken < 2**26


def test_the_number_of_connections_is_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("synthdetect.serving.connections._CONNECTIONS", 4)
    monkeypatch.setattr("synthdetect.serving.connections._TURNED_AWAY", 2)
    with _server(_well, 2) as port, contextlib.ExitStack() as stack:
        idle = [stack.enter_context(socket.create_connection(("127.0.0.1", port), 10))
                for _ in range(4)]  # fmt: skip
        clients = [http.client.HTTPConnection("127.0.0.1", port, timeout=10) for _ in range(3)]
        for client in clients:
            client.connect()
            stack.callback(client.close)
        with pytest.raises((ConnectionResetError, http.client.RemoteDisconnected)):
            _status(clients[2])
        assert [_status(client) for client in clients[:2]] == [503, 503]
        assert [connection.recv(1) for connection in idle] == [b""] * 4  # they timed out
        assert _status(http.client.HTTPConnection("127.0.0.1", port, timeout=10)) == 200


@pytest.mark.parametrize(
    ("error", "status", "message"),
    [
        (RuntimeError("/secret/place"), 500, "the server failed"),
        (RecursionError(), 400, "the request is nested too deeply"),
    ],
)
def test_an_error_of_the_server_reveals_nothing(
    error: Exception, status: int, message: str
) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        raise error

    sent: list[Any] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b""}

    async def send(said: Any) -> None:
        sent.append(said)

    guarded = Guarded(app, max_body=100, timeout=30)
    asyncio.run(guarded({"type": "http", "path": "/invocations", "headers": []}, receive, send))
    assert sent[0]["status"] == status
    assert json.loads(sent[1]["body"]) == {"message": message}

"""The limits on one request, from the environment and from a client that does not keep to them."""

import asyncio
import base64
import io
import json
from typing import Any

import pandas as pd
import pytest
import torch
from PIL import Image

from synthdetect.detector import Card, Detector
from synthdetect.errors import UserError
from synthdetect.models.networks import build
from synthdetect.serving.limits import Guarded, limits_from_environment
from synthdetect.serving.model import Refused, ServedDetector


def test_the_environment_gives_limits_and_an_unknown_one_fails(
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
    ("variable", "value", "reason"),
    [("MAX_IMAGES", "1", "more than 1 images"), ("MAX_PIXELS", "99", "10x10 pixels")],
)
def test_a_served_model_keeps_to_them(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str, reason: str
) -> None:
    monkeypatch.setenv(f"SYNTHDETECT_SERVE_{variable}", value)
    torch.manual_seed(0)
    card = Card("mobilenet_v3_large", 32, "resize")
    served = ServedDetector(Detector(build("mobilenet_v3_large", 32), card))
    file = io.BytesIO()
    Image.new("RGB", (10, 10)).save(file, "PNG")
    image = base64.b64encode(file.getvalue()).decode()
    with pytest.raises(Refused, match=reason):
        served.predict(None, pd.DataFrame({"image": [image, image]}))


def test_bodies_of_unknown_size_are_counted_as_the_largest() -> None:
    """Eight of them fill the room; the ninth is told to come again, and later has room."""
    reading = asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"ok"})

    guarded = Guarded(app, max_body=100, timeout=30)
    scope = {
        "type": "http",
        "path": "/invocations",
        "headers": [(b"transfer-encoding", b"chunked")],
    }

    async def request() -> int:
        statuses = []

        async def receive() -> dict[str, Any]:
            await reading.wait()
            return {"type": "http.request", "body": b"x"}

        async def send(message: Any) -> None:
            statuses.append(message.get("status"))

        await guarded(scope, receive, send)
        return int(statuses[0])

    async def scene() -> tuple[list[int], int, int]:
        first = [asyncio.create_task(request()) for _ in range(8)]
        await asyncio.sleep(0)
        ninth = await request()
        reading.set()
        return await asyncio.gather(*first), ninth, await request()

    assert asyncio.run(scene()) == ([200] * 8, 503, 200)


@pytest.mark.parametrize(
    ("error", "status", "message"),
    [
        (RuntimeError("/secret/place"), 500, "the server failed"),
        (RecursionError(), 400, "it is nested too deeply"),
    ],
)
def test_an_error_of_the_servers_tells_nothing(error: Exception, status: int, message: str) -> None:
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

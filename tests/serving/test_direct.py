"""Tests that usual requests get MLflow's answers on the shorter way, and others reach MLflow."""

import asyncio
import base64
import json
import time
from typing import Any

import pytest

from synthdetect.detectors.detector import Detector
from synthdetect.serving import direct
from synthdetect.serving.model import ServedDetector
from synthdetect.serving.options import ServeOptions
from synthdetect.serving.server import application
from tests.page.conftest import made, picture

IMAGES = [base64.b64encode(picture(seed=seed)).decode() for seed in range(3)]
USUAL: dict[str, Any] = {
    "inputs": {"inputs": {"image": IMAGES}},
    "instances": {"instances": [{"image": image} for image in IMAGES]},
    "records": {"dataframe_records": [{"image": image} for image in IMAGES]},
    "split": {"dataframe_split": {"columns": ["image"], "data": [[image] for image in IMAGES]}},
    "threshold": {"inputs": {"image": IMAGES}, "params": {"threshold": 0.25}},
    "no threshold": {"inputs": {"image": IMAGES}, "params": {}},
    "bad threshold": {"inputs": {"image": IMAGES}, "params": {"threshold": 1.5}},
    "no image": {"inputs": {"image": [IMAGES[0], "x"]}},
}
OTHERS: dict[str, Any] = {
    "one text": {"inputs": {"image": IMAGES[0]}},
    "a list": {"inputs": IMAGES},
    "an index": {"dataframe_split": {"columns": ["image"], "index": [5], "data": [[IMAGES[0]]]}},
    "two columns": {"dataframe_records": [{"image": IMAGES[0], "other": 1}]},
    "another parameter": {"inputs": {"image": IMAGES}, "params": {"other": 1}},
    "a text as threshold": {"inputs": {"image": IMAGES}, "params": {"threshold": "0.5"}},
    "true as threshold": {"inputs": {"image": IMAGES}, "params": {"threshold": True}},
    "a huge threshold": {"inputs": {"image": IMAGES}, "params": {"threshold": 10**400}},
    "no parameters": {"inputs": {"image": IMAGES}, "params": None},
    "nothing": {"inputs": {"image": []}},
    "no text": {"inputs": {"image": [None]}},
    "two shapes": {"inputs": {"image": IMAGES}, "instances": []},
    "no shape": {},
    "no object": [],
}


@pytest.fixture(scope="module")
def detector() -> Detector:
    return made(views="single")


def ask(app: Any, content: Any, kind: bytes = b"application/json") -> tuple[int, Any]:
    """Ask an ASGI application for scores: the status and the answer."""
    body = content if isinstance(content, bytes) else json.dumps(content).encode()
    messages: list[dict[str, Any]] = []
    scope = {
        "type": "http", "method": "POST", "path": "/invocations", "query_string": b"",
        "headers": [(b"content-type", kind), (b"content-length", str(len(body)).encode())],
    }  # fmt: skip

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": body}

    async def send(message: Any) -> None:
        messages.append(dict(message))

    asyncio.run(app(scope, receive, send))
    return messages[0]["status"], json.loads(messages[1]["body"])


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """For each request, whether it went the shorter way."""
    found: list[bool] = []
    usual = direct._usual

    def watched(body: bytes) -> Any:
        answer = usual(body)
        found.append(answer is not None)
        return answer

    monkeypatch.setattr(direct, "_usual", watched)
    return found


@pytest.fixture(scope="module")
def apps(detector: Detector) -> tuple[Any, Any]:
    """The application, and the same one without the shorter way."""
    options = ServeOptions(batch_wait=0)
    whole = application(detector, options)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("synthdetect.serving.server.Direct", lambda app, served: app)
        return whole, application(detector, options)


@pytest.mark.parametrize("name", [*USUAL, *OTHERS])
def test_answers_are_mlflows(apps: tuple[Any, Any], asked: list[bool], name: str) -> None:
    short, long = (ask(app, (USUAL | OTHERS)[name]) for app in apps)
    assert asked == [name in USUAL]
    assert short == long


@pytest.mark.parametrize("body", [b"", b"{", b"\xff", b"[" * 100_000])
def test_what_is_no_json_is_mlflows(apps: tuple[Any, Any], asked: list[bool], body: bytes) -> None:
    short, long = (ask(app, body) for app in apps)
    assert short == long
    assert (short[0], asked) == (400, [False])


def test_csv_is_mlflows(apps: tuple[Any, Any], asked: list[bool]) -> None:
    short, long = (ask(app, f"image\n{IMAGES[0]}\n".encode(), b"text/csv") for app in apps)
    assert short == long
    assert (short[0], asked) == (200, [])


def test_a_request_that_takes_too_long_is_given_up(
    detector: Detector, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_SCORING_SERVER_REQUEST_TIMEOUT", "1")
    never = ServedDetector(detector, ServeOptions(), lambda prepare: time.sleep(3))
    app = direct.Direct(lambda *_: asyncio.sleep(0), never)
    assert ask(app, USUAL["inputs"]) == (504, {"message": "Request processing time exceeded limit"})

"""Tests of the routes of the page, beside those of MLflow's protocol."""

import base64
import json
import urllib.error
import urllib.request
from typing import Any

import pytest

from synthdetect.detectors.detector import Detector
from tests.page.conftest import picture


def ask(address: str, path: str, body: bytes | None = None, kind: str = "") -> tuple[int, Any]:
    request = urllib.request.Request(f"{address}{path}", data=body, headers={"Content-Type": kind})
    try:
        with urllib.request.urlopen(request, timeout=60) as response:
            return response.status, response.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()


def test_an_inspection_agrees_with_the_protocol(address: str) -> None:
    text = base64.b64encode(picture()).decode()
    body = json.dumps({"inputs": {"image": [text]}}).encode()
    status, answer = ask(address, "/invocations", body, "application/json")
    assert status == 200
    scored = json.loads(answer)["predictions"][0]
    status, answer = ask(address, "/inspect", picture())
    found = json.loads(answer)
    assert status == 200
    assert (found["probability"], found["label"]) == (scored["probability"], scored["label"])


@pytest.mark.parametrize(
    ("content", "reason"),
    [(b"", "the file is empty."), (b"x", "not an image of a known format."),
     (bytes(2**20 + 1), "1,048,577 bytes are more than the limit of 1,048,576.")],
)  # fmt: skip
def test_what_cannot_be_inspected_gets_400_and_the_reason(
    address: str, content: bytes, reason: str
) -> None:
    status, answer = ask(address, "/inspect", content)
    assert (status, json.loads(answer)) == (400, {"message": reason})


def test_a_busy_server_asks_to_try_again(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("synthdetect.page.routes._WAITING", 0)
    status, answer = ask(address, "/inspect", picture())
    assert (status, json.loads(answer)) == (429, {"message": "busy; try again"})
    monkeypatch.undo()
    assert ask(address, "/inspect", picture())[0] == 200


@pytest.mark.parametrize("path", ["/redoc", "/docs/oauth2-redirect", "/elsewhere", "/page.py"])
def test_there_is_nothing_else(address: str, path: str) -> None:
    assert ask(address, path)[0] == 404


def test_the_description_of_the_api_is_complete(address: str, detector: Detector) -> None:
    status, answer = ask(address, "/openapi.json")
    schema = json.loads(answer)
    assert status == 200
    assert set(schema["paths"]) == {"/ping", "/health", "/version", "/invocations", "/ready", "/metrics", "/model", "/inspect"}  # fmt: skip  # noqa: E501
    example = schema["paths"]["/invocations"]["post"]["requestBody"]["content"]["application/json"]
    image = base64.b64encode(picture()).decode()
    for name, shape in example["examples"].items():  # each of them is accepted
        body = json.dumps(shape["value"]).replace("iVBORw0KGgo\\u2026", image).encode()
        assert ask(address, "/invocations", body, "application/json")[0] == 200, name
    fields = schema["components"]["schemas"]["Inspection"]["properties"]
    found = json.loads(ask(address, "/inspect", picture())[1])
    assert fields.keys() == found.keys()
    assert all(field["description"] for field in fields.values())
    about = json.loads(ask(address, "/model")[1])
    assert about.keys() == schema["components"]["schemas"]["About"]["properties"].keys()
    assert about["threshold"] == detector.card.decision.threshold

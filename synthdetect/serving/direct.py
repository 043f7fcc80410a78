"""A shorter way for the usual requests: from JSON to the detector and back, without tables."""

import asyncio
import json
from typing import Any

from mlflow.environment_variables import MLFLOW_SCORING_SERVER_REQUEST_TIMEOUT

from synthdetect.serving.limits import App, Message, Receive, Send, refuse
from synthdetect.serving.model import Refused, ServedDetector

_PATH = "/invocations"
_LARGE = 1e9  # a threshold that MLflow is left to refuse; an integer may have thousands of digits


class Direct:
    """An ASGI application that answers the usual requests itself, as MLflow's would.

    Those are JSON in any of MLflow's four shapes with the column `image` alone, and no parameter
    but a threshold. MLflow makes tables of a request and of its answer, and checks both against the
    signature, which takes as long as a tenth of a forward pass.

    Args:
        app: The application that answers all other requests.
        served: The detector.
    """

    def __init__(self, app: App, served: ServedDetector) -> None:
        self._app, self._served = app, served
        self._timeout = float(MLFLOW_SCORING_SERVER_REQUEST_TIMEOUT.get())  # type: ignore[no-untyped-call]

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Answer one request, as ASGI specifies. Its body must come in one piece."""
        kinds = [value for name, value in scope["headers"] if name == b"content-type"]
        if scope["path"] != _PATH or scope["method"] != "POST" or kinds != [b"application/json"]:
            await self._app(scope, receive, send)
            return
        message = await receive()
        found = _usual(message["body"])
        if found is None:
            await self._app(scope, _beginning_with(message, receive), send)
            return
        try:
            answers = await asyncio.wait_for(
                asyncio.to_thread(self._served.answers, *found), self._timeout
            )
        except Refused as refusal:
            await refuse(send, 400, refusal.message)
        except TimeoutError:
            await refuse(send, 504, "Request processing time exceeded limit")
        else:
            rows = zip(*answers.values(), strict=True)
            named = [dict(zip(answers, row, strict=True)) for row in rows]
            content = json.dumps({"predictions": named}).encode()
            headers = [
                (b"content-type", b"application/json"),
                (b"content-length", str(len(content)).encode()),
            ]
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            await send({"type": "http.response.body", "body": content})


def _usual(body: bytes) -> tuple[list[str], float] | None:
    """Return images and threshold of a usual request, -1 without one; None for any other."""
    try:
        request = json.loads(body)
    except (ValueError, RecursionError):
        return None
    if not isinstance(request, dict):
        return None
    parameters = request.pop("params", {})
    if not isinstance(parameters, dict) or len(request) != 1:
        return None
    threshold = parameters.pop("threshold", -1.0)
    ((shape, data),) = request.items()
    texts = _images(shape, data)
    is_usual = (
        texts
        and not parameters
        and type(threshold) in (int, float)
        and abs(threshold) < _LARGE
        and all(isinstance(text, str) for text in texts)
    )
    return (texts, float(threshold)) if texts and is_usual else None


def _images(shape: str, data: Any) -> list[Any] | None:
    """Return the values of the column `image`, if it is the only one, of MLflow's shapes."""
    match shape, data:
        case "inputs", {"image": list(texts), **others} if not others:
            return texts
        case "instances" | "dataframe_records", list(rows) if all(map(_is_image, rows)):
            return [row["image"] for row in rows]
        case "dataframe_split", {"columns": ["image"], "data": list(rows), **others} if (
            not others and all(isinstance(row, list) and len(row) == 1 for row in rows)
        ):
            return [row[0] for row in rows]
    return None


def _is_image(row: Any) -> bool:
    return isinstance(row, dict) and row.keys() == {"image"}


def _beginning_with(message: Message, receive: Receive) -> Receive:
    """Return a way to receive a message again, and then all others."""
    first = [message]

    async def again() -> Message:
        return first.pop() if first else await receive()

    return again

"""What a server takes of one request, whoever sends it: the limits, and a guard that holds them."""

import asyncio
import json
import logging
import os
from collections.abc import Awaitable, Callable, Iterator, MutableMapping
from contextlib import contextmanager
from typing import Any

from synthdetect.config import ServeOptions
from synthdetect.errors import UserError

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Message, Receive, Send], Awaitable[None]]

_log = logging.getLogger(__name__)
_VARIABLE = "SYNTHDETECT_SERVE_"
_PATHS = ("/ping", "/health", "/version", "/invocations")
_IN_FLIGHT = 8  # requests of the greatest size that are held at once


def limits_from_environment() -> ServeOptions:
    """The limits that the environment gives, for a server that takes no options of ours.

    They are named as the options are: `SYNTHDETECT_SERVE_MAX_MIB` and so on.

    Raises:
        UserError: one that there is not, or a value that does not fit.
    """
    given = {
        name.removeprefix(_VARIABLE).lower(): value
        for name, value in os.environ.items()
        if name.startswith(_VARIABLE)
    }
    try:
        return ServeOptions.resolve(given)
    except UserError as error:
        raise UserError(f"{_VARIABLE}*, in the environment: {error}") from error


class Guarded:
    """An ASGI application behind limits on what is sent to it, that tells nothing of its inside.

    A body that is too large is refused before it is read, one that comes too slowly is given up,
    and an error's answer is its reason alone.

    Args:
        app: to guard.
        max_body: bytes of a request's body.
        timeout: seconds in which a body must have come.
    """

    def __init__(self, app: App, *, max_body: int, timeout: float) -> None:
        self._app, self._max_body, self._timeout = app, max_body, timeout
        self._held = 0

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Serve one connection's request, as ASGI has it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        if scope["path"] not in _PATHS:
            await _refuse(send, 404, "there is nothing here; send images to /invocations")
            return
        headers = dict(scope["headers"])
        declared = headers.get(b"content-length", b"0")
        size = int(declared) if declared.isdigit() else 0
        if b"transfer-encoding" in headers:
            size = self._max_body  # it comes in chunks, and may be as large as that
        if size > self._max_body:
            await self._refuse_size(send)
            return
        with self._hold(size) as has_room:
            if not has_room:
                await _refuse(send, 503, "busy; try again", retry_after=1)
                return
            try:
                body = await asyncio.wait_for(self._body(receive), self._timeout)
            except TimeoutError:
                await _refuse(send, 408, f"the request took more than {self._timeout:g} s to come")
                return
            if body is None:
                await self._refuse_size(send)
                return
            await self._answer(scope, body, receive, send)

    async def _answer(self, scope: Message, body: bytes, receive: Receive, send: Send) -> None:
        given = False

        async def replay() -> Message:
            nonlocal given
            if given:
                return await receive()
            given = True
            return {"type": "http.request", "body": body, "more_body": False}

        start: Message = {}
        said = bytearray()

        async def watched(message: Message) -> None:
            if message["type"] == "http.response.start":
                start.update(message)
            if start.get("status", 200) < 400:
                await send(message)
            elif message["type"] == "http.response.body":
                said.extend(message.get("body", b""))

        try:
            await self._app(scope, replay, watched)
        except RecursionError:
            start["status"], said = 400, bytearray(b'{"message": "it is nested too deeply"}')
        except Exception as error:
            if start and start["status"] < 400:
                raise  # the answer had begun
            _log.error("%s: %s", type(error).__name__, error)
            start["status"] = 500
        if start["status"] >= 400:
            await _refuse(send, start["status"], _reason(start["status"], bytes(said)))

    async def _body(self, receive: Receive) -> bytes | None:
        """The whole body; None if it is too large."""
        body = bytearray()
        while True:
            message = await receive()
            body.extend(message.get("body", b""))
            if len(body) > self._max_body:
                return None
            if not message.get("more_body"):
                return bytes(body)

    async def _refuse_size(self, send: Send) -> None:
        await _refuse(send, 413, f"the request has more than {self._max_body:,} bytes")

    @contextmanager
    def _hold(self, size: int) -> Iterator[bool]:
        """Whether there is room for that many bytes more, which is then taken."""
        if self._held and self._held + size > _IN_FLIGHT * self._max_body:
            yield False
            return
        self._held += size
        try:
            yield True
        finally:
            self._held -= size


def _reason(status: int, answer: bytes) -> str:
    """What a client may know of an error: its first line, and nothing of one that is ours."""
    if status >= 500 and status != 504:
        return "the server failed"
    try:
        message = json.loads(answer).get("message", "")
    except (ValueError, AttributeError):
        message = ""
    return str(message).splitlines()[0][:300] if message else "the request cannot be used"


async def _refuse(send: Send, status: int, reason: str, retry_after: int = 0) -> None:
    content = json.dumps({"message": reason}).encode()
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(content)).encode()),
        (b"connection", b"close"),
    ]
    if retry_after:
        headers.append((b"retry-after", str(retry_after).encode()))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": content})

"""What a server takes of one request, whoever sends it: the limits, and a guard that holds them."""

import asyncio
import json
import logging
import os
import re
import threading
from collections.abc import Awaitable, Callable, Iterator, MutableMapping
from contextlib import contextmanager
from typing import Any

from synthdetect.serving.options import ServeOptions
from synthdetect.system.errors import UserError

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Message, Receive, Send], Awaitable[None]]

_log = logging.getLogger(__name__)
_VARIABLE = "SYNTHDETECT_SERVE_"
_LIMITS = ("max_mib", "max_pixels", "max_total_pixels", "max_images")
# What Kubernetes puts into the environment for a service that is named as we are.
_SERVICE_LINK = re.compile(r"(.*_)?((PORT|HOST)|(PORT|SERVICE)_.*)")
_PATHS = ("/ping", "/health", "/version", "/invocations")
_IN_FLIGHT = 8  # bodies of the greatest size: as many bytes are held at once, whosever they are

decoding = threading.BoundedSemaphore(os.cpu_count() or 1)
"""Held while an image is decoded: more of them at once would take memory, and be no faster.

It is here since MLflow runs the served model's own module anew each time that it loads a model.
"""


def limits_from_environment() -> ServeOptions:
    """The limits that the environment gives, for a server that takes no options of ours.

    They are named as the options are: `SYNTHDETECT_SERVE_MAX_MIB` and so on. Other options of
    `synthdetect serve` are not read, nor is what Kubernetes says of services.

    Raises:
        UserError: one that there is not, or a value that does not fit.
    """
    names = [
        name.removeprefix(_VARIABLE)
        for name in os.environ
        if name.startswith(_VARIABLE) and not _SERVICE_LINK.fullmatch(name, len(_VARIABLE))
    ]
    unread = ServeOptions.fields().keys() - set(_LIMITS)
    given = {
        name.lower(): os.environ[_VARIABLE + name] for name in names if name.lower() not in unread
    }
    try:
        return ServeOptions.resolve(given)
    except UserError as error:
        raise UserError(f"{_VARIABLE}*, in the environment: {error}") from error


class _Refusal(Exception):
    """A request is not taken: the status and the reason for the client."""

    def __init__(self, status: int, reason: str, retry_after: int = 0) -> None:
        super().__init__(reason)
        self.status, self.reason, self.retry_after = status, reason, retry_after


class _Gone(Exception):
    """The client hung up before its request was complete."""


class Guarded:
    """An ASGI application behind limits on what is sent to it, that tells nothing of its inside.

    A body that declares itself too large is refused before it is read, one that comes too slowly is
    given up, and an error's answer is its reason alone. All bodies together take bounded memory:
    each byte counts from its coming to the answer's end, and who sends nothing takes nothing.

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
        with self._holding() as hold:
            try:
                self._check_size(size)
                body = await asyncio.wait_for(self._body(receive, hold), self._timeout)
            except TimeoutError:
                await _refuse(send, 408, f"the request took more than {self._timeout:g} s to come")
            except _Refusal as refusal:
                await _refuse(send, refusal.status, refusal.reason, refusal.retry_after)
            except _Gone:
                pass
            else:
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

    async def _body(self, receive: Receive, hold: Callable[[int], None]) -> bytes:
        """The whole body, each part of which is held before it is kept."""
        body = bytearray()
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise _Gone
            part = message.get("body", b"")
            self._check_size(len(body) + len(part))
            hold(len(part))
            body.extend(part)
            if not message.get("more_body"):
                return bytes(body)

    def _check_size(self, size: int) -> None:
        if size > self._max_body:
            raise _Refusal(413, f"the request has more than {self._max_body:,} bytes")

    @contextmanager
    def _holding(self) -> Iterator[Callable[[int], None]]:
        """A function that takes room for so many bytes more; all of it is given back at the end."""
        taken = 0

        def hold(size: int) -> None:
            nonlocal taken
            if self._held + size > _IN_FLIGHT * self._max_body:
                raise _Refusal(503, "busy; try again", retry_after=1)
            self._held += size
            taken += size

        try:
            yield hold
        finally:
            self._held -= taken


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

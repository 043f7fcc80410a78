"""Limits on the requests that a server accepts, and their enforcement."""

import asyncio
import json
import logging
import os
import re
import threading
from collections.abc import Awaitable, Callable, Collection, Iterator, MutableMapping
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
# Kubernetes sets such variables for a service of the name synthdetect-serve.
_SERVICE_LINK = re.compile(r"(.*_)?((PORT|HOST)|(PORT|SERVICE)_.*)")
PATHS = ("/ping", "/health", "/version", "/invocations")
"""The paths of MLflow's protocol."""
READY = "/ready"
"""The path that says whether requests are accepted at the moment."""
_BUSY = "busy; try again"
_IN_FLIGHT = 8  # bodies of the largest allowed size that are in memory at once

decoding = threading.BoundedSemaphore(os.cpu_count() or 1)
"""Held while an image is decoded: decoding more images than there are cores only takes memory.

It is not in the module of the served model, which MLflow executes whenever it loads a model.
"""


def limits_from_environment() -> ServeOptions:
    """Read the limits from environment variables, for servers that do not have our options.

    A variable is named after its option: `SYNTHDETECT_SERVE_MAX_MIB` and so on. Variables of other
    options of `synthdetect serve`, and those that Kubernetes sets, are ignored.

    Raises:
        UserError: If there is no such limit, or its value is invalid.
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
    """A request is refused with an HTTP status and a reason."""

    def __init__(self, status: int, reason: str, retry_after: int = 0) -> None:
        super().__init__(reason)
        self.status, self.reason, self.retry_after = status, reason, retry_after


class _Gone(Exception):
    """The client closed the connection before its request was complete."""


class Guarded:
    """An ASGI application behind limits on requests, whose errors reveal nothing of the server.

    A body whose declared size is too large is refused before it is read, and one that arrives too
    slowly is refused after `timeout`. All bodies together take bounded memory: each byte counts
    from its arrival to the end of the answer. The answer to an error is its reason only.

    Args:
        app: The application.
        max_body: Largest body of a request in bytes.
        timeout: Seconds within which a body must arrive.
        paths: The paths that there are.

    Attributes:
        paths: Those paths.
    """

    def __init__(
        self, app: App, *, max_body: int, timeout: float, paths: Collection[str] = PATHS
    ) -> None:
        self._app, self._max_body, self._timeout = app, max_body, timeout
        self.paths = frozenset(paths)
        self._held = 0

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Answer one request, as ASGI specifies."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        if scope["path"] not in self.paths:
            await refuse(send, 404, "there is nothing here; send images to /invocations")
            return
        if scope["path"] == READY and self._is_busy(self._max_body):
            await refuse(send, 503, _BUSY, retry_after=1)
            return
        headers = dict(scope["headers"])
        declared = headers.get(b"content-length", b"0")
        size = int(declared) if declared.isdigit() else 0
        with self._holding() as hold:
            try:
                self._check_size(size)
                body = await asyncio.wait_for(self._body(receive, hold), self._timeout)
            except TimeoutError:
                reason = f"the request took more than {self._timeout:g} s to arrive"
                await refuse(send, 408, reason)
            except _Refusal as refusal:
                await refuse(send, refusal.status, refusal.reason, refusal.retry_after)
            except _Gone:
                pass
            else:
                await self._answer(scope, body, receive, send)

    async def _answer(self, scope: Message, body: bytes, receive: Receive, send: Send) -> None:
        is_read = False

        async def replay() -> Message:
            nonlocal is_read
            if is_read:
                return await receive()
            is_read = True
            return {"type": "http.request", "body": body, "more_body": False}

        start: Message = {}
        error_body = bytearray()

        async def watched(message: Message) -> None:
            if message["type"] == "http.response.start":
                start.update(message)
            if start.get("status", 200) < 400:
                await send(message)
            elif message["type"] == "http.response.body":
                error_body.extend(message.get("body", b""))

        try:
            await self._app(scope, replay, watched)
        except RecursionError:
            start["status"] = 400
            error_body = bytearray(b'{"message": "the request is nested too deeply"}')
        except Exception as error:
            if start and start["status"] < 400:
                raise  # part of the answer is sent
            _log.error("%s: %s", type(error).__name__, error)
            start["status"] = 500
        if start["status"] >= 400:
            await refuse(send, start["status"], _reason(start["status"], bytes(error_body)))

    async def _body(self, receive: Receive, hold: Callable[[int], None]) -> bytes:
        """Read the whole body; memory for each part is reserved before it is kept."""
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

    def _is_busy(self, size: int) -> bool:
        """Return whether a body of a size in bytes would be one too many."""
        return self._held + size > _IN_FLIGHT * self._max_body

    def _check_size(self, size: int) -> None:
        if size > self._max_body:
            raise _Refusal(413, f"the request has more than {self._max_body:,} bytes")

    @contextmanager
    def _holding(self) -> Iterator[Callable[[int], None]]:
        """Yield a function that reserves memory in bytes; all of it is released in the end."""
        taken = 0

        def hold(size: int) -> None:
            nonlocal taken
            if self._is_busy(size):
                raise _Refusal(503, _BUSY, retry_after=1)
            self._held += size
            taken += size

        try:
            yield hold
        finally:
            self._held -= taken


def _reason(status: int, answer: bytes) -> str:
    """Return the first line of a client's error, and nothing of an error of the server."""
    if status >= 500 and status != 504:
        return "the server failed"
    try:
        message = json.loads(answer).get("message", "")
    except (ValueError, AttributeError):
        message = ""
    return str(message).splitlines()[0][:300] if message else "the request cannot be used"


async def refuse(send: Send, status: int, reason: str, retry_after: int = 0) -> None:
    """Answer with an HTTP status, a reason as JSON, and after how many seconds to try again."""
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

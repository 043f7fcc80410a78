"""How a server treats its connections: their number, and clients that stall.

This module imports nothing large, since each process of a server must answer soon after its start.
"""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

_CONNECTIONS = 512  # open connections, beyond which every request is answered with 503
_TURNED_AWAY = 256  # more that stay open for that answer; in all, far fewer than 1024 open files
_THREADS = 64  # requests that are decoded or wait for a forward pass at once
_HEALTH = 20  # seconds after which a process that does not answer its supervisor is replaced


def settings_for(app: Any, timeout: float) -> "Settings":
    """Return settings of a server that limit its connections and the time of their silence.

    Args:
        app: The application to serve, or with the attribute `factory` what makes it.
        timeout: Seconds within which a client must send the head of a request, and within which it
            must accept the next bytes of an answer.
    """
    settings = Settings(
        app,
        http=Impatient,
        loop=f"{__name__}:{new_loop.__name__}",
        ws="none",
        limit_concurrency=_CONNECTIONS,
        timeout_worker_healthcheck=_HEALTH,
        timeout_keep_alive=15,
        log_level="warning",
        server_header=False,
        lifespan="off",
    )
    settings.silence = timeout
    return settings


def new_loop() -> asyncio.AbstractEventLoop:
    """Return an event loop for many requests at once; asyncio's own threads are few."""
    loop = asyncio.new_event_loop()
    loop.set_default_executor(ThreadPoolExecutor(_THREADS, "request"))
    return loop


class Settings(uvicorn.Config):
    """Settings of a server.

    Attributes:
        silence: Seconds for which a client may stall.
    """

    silence: float


class Impatient(H11Protocol):
    """An HTTP protocol that closes the connection of a client that stalls.

    uvicorn's own timer covers the time between requests only; it stops at the first byte of the
    next one. This protocol has one timer for the head of a request, and one for the part of an
    answer that the client does not accept.
    """

    config: Settings

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        silence = self.config.silence
        self._head = _Timer(self.loop, silence, self.timeout_keep_alive_handler)
        self._answer = _Timer(self.loop, silence, transport.abort)
        if len(self.connections) > _CONNECTIONS + _TURNED_AWAY:
            transport.abort()
            return
        transport.set_write_buffer_limits(high=0)  # pause as soon as any byte is left
        self._head.start()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self.conn.their_state is h11.IDLE:
            self._head.start()
        else:
            self._head.stop()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._answer.start()

    def resume_writing(self) -> None:
        self._answer.stop()
        super().resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        self._head.stop()
        self._answer.stop()
        super().connection_lost(exc)


class _Timer:
    """Calls a function after some time unless it is stopped; starting it twice has no effect."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, seconds: float, action: Callable[[], None]
    ) -> None:
        self._begin = partial(loop.call_later, seconds, action)
        self._running: asyncio.TimerHandle | None = None

    def start(self) -> None:
        self._running = self._running or self._begin()

    def stop(self) -> None:
        if self._running:
            self._running.cancel()
            self._running = None

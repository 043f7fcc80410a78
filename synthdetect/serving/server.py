"""An HTTP server for one detector: MLflow's scoring protocol behind limits."""

import asyncio
import logging
import socket
from collections.abc import Callable
from functools import partial
from typing import Any

import h11
import pandas as pd
import uvicorn
from mlflow.models import Model
from mlflow.pyfunc import PyFuncModel, scoring_server
from uvicorn.protocols.http.h11_impl import H11Protocol

from synthdetect.detectors.detector import Detector
from synthdetect.serving.limits import App, Guarded
from synthdetect.serving.model import ServedDetector
from synthdetect.serving.options import ServeOptions
from synthdetect.serving.signature import SIGNATURE
from synthdetect.system.console import console
from synthdetect.system.errors import UserError

_CONNECTIONS = 512  # open connections, beyond which every request is answered with 503
_TURNED_AWAY = 256  # more that stay open for that answer; in all, far fewer than 1024 open files


def run_server(detector: Detector, name: str, options: ServeOptions) -> None:
    """Serve a detector until the process is interrupted.

    Args:
        detector: The detector.
        name: Its name, for the console.
        options: The address and the limits.

    Raises:
        UserError: If the port is not free.
    """
    listening = _listen(options.host, options.port)
    # It gives advice on every request of a form that is in fact served well.
    logging.getLogger("mlflow.pyfunc.scoring_server").setLevel(logging.ERROR)
    served = ServedDetector(detector, options)
    # The largest image that is allowed, in base64, and 1 MiB for the rest of the request.
    body = options.max_mib * 2**20 * 4 // 3 + 2**20
    app = Guarded(scoring_server.init(_as_mlflow(served)), max_body=body, timeout=options.timeout)
    console.print(f"serving {name} on http://{options.host}:{options.port}/invocations")
    uvicorn.Server(settings_for(app, options.timeout)).run(sockets=[listening])


def settings_for(app: App, timeout: float) -> uvicorn.Config:
    """Return settings of a server that limit its connections and the time of their silence.

    Args:
        app: The application to serve.
        timeout: Seconds within which a client must send the head of a request, and within which it
            must accept the next bytes of an answer.
    """
    return uvicorn.Config(
        app,
        http=_impatient(timeout),
        ws="none",
        limit_concurrency=_CONNECTIONS,
        timeout_keep_alive=15,
        log_level="warning",
        server_header=False,
        lifespan="off",
    )


def _impatient(timeout: float) -> type[H11Protocol]:
    """Return an HTTP protocol that closes the connection of a client that stalls for `timeout` s.

    uvicorn's own timer covers the time between requests only; it stops at the first byte of the
    next one. This protocol has one timer for the head of a request, and one for the part of an
    answer that the client does not accept.
    """

    class Impatient(H11Protocol):
        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            super().connection_made(transport)
            self._head = _Timer(self.loop, timeout, self.timeout_keep_alive_handler)
            self._answer = _Timer(self.loop, timeout, transport.abort)
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

    return Impatient


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


def _as_mlflow(served: ServedDetector) -> PyFuncModel:
    class Implementation:
        def predict(self, data: pd.DataFrame, params: dict[str, Any] | None = None) -> pd.DataFrame:
            return served.predict(None, data, params)

    description = Model(signature=SIGNATURE)
    description.add_flavor("python_function", loader_module=ServedDetector.__module__)
    return PyFuncModel(description, Implementation())


def _listen(host: str, port: int) -> socket.socket:
    try:
        listening = socket.create_server((host, port), backlog=256)
    except OSError as error:
        raise UserError(
            f"--port: the server cannot listen on {host}:{port}: {error.strerror}. Give another."
        ) from error
    return listening

"""An HTTP server for one detector: MLflow's scoring protocol behind limits."""

import logging
import socket
from collections.abc import Callable, Collection
from typing import Any

import numpy as np
import pandas as pd
import torch
import uvicorn
from fastapi import FastAPI, Response
from mlflow.models import Model
from mlflow.pyfunc import PyFuncModel, scoring_server

from synthdetect.detectors.card import TORCH
from synthdetect.detectors.detector import Detector
from synthdetect.serving.batching import Batches, Outputs
from synthdetect.serving.connections import settings_for
from synthdetect.serving.direct import Direct
from synthdetect.serving.limits import PATHS, READY, App, Guarded
from synthdetect.serving.metrics import Metrics
from synthdetect.serving.model import ServedDetector
from synthdetect.serving.options import ServeOptions
from synthdetect.serving.parts import InParts
from synthdetect.serving.processes import run_processes
from synthdetect.serving.signature import signature_of
from synthdetect.system.console import console
from synthdetect.system.errors import UserError
from synthdetect.system.threads import apart

_METRICS = "/metrics"

Extend = Callable[[FastAPI], Collection[str]]
"""Adds routes to MLflow's application and returns their paths."""


def run_server(make: Callable[[ServeOptions], App], name: str, options: ServeOptions) -> None:
    """Serve a detector until the process is interrupted.

    Args:
        make: Makes the application. With several processes each of them makes its own, so it must
            then be a function of a module.
        name: Its name, for the console.
        options: The address, the limits, and the number of processes.

    Raises:
        UserError: If the port is not free.
        RuntimeError: If a process cannot start.
    """
    listening = _listen(options.host, options.port)
    address = f"http://{options.host}:{options.port}"
    console.print(f"serving {name} on {address}/invocations")
    console.print(f"open {address}/ to drop pictures on it; {address}/docs describes the API")
    if options.processes == 1:
        made = apart(make, options)
        uvicorn.Server(settings_for(made, options.timeout)).run(sockets=[listening])
    else:
        threads = max(1, torch.get_num_threads() // options.processes)  # each its share of cores
        run_processes(make, options, threads, listening)


def application(detector: Detector, options: ServeOptions, extend: Extend = lambda app: ()) -> App:
    """Return the application that serves a detector within the limits.

    It has scored an image when it is returned, so no client waits for what the first one takes.

    Args:
        detector: The detector.
        options: The limits.
        extend: Adds further routes.
    """
    metrics = Metrics()
    outputs: Outputs = detector.outputs
    if detector.card.engine == TORCH:  # the other engines have threads of their own
        outputs = InParts(outputs, torch.get_num_threads())
    batches = Batches(outputs, wait=options.batch_wait / 1000, watch=metrics.count_pass)
    served = ServedDetector(detector, options, batches)
    inside = scoring_server.init(_as_mlflow(served))
    # It gives advice on every request of a form that is in fact served well.
    logging.getLogger("mlflow.pyfunc.scoring_server").setLevel(logging.ERROR)
    _add_operation(inside, metrics)
    paths = {*PATHS, READY, _METRICS, *extend(inside)}
    size = detector.card.model.image_size
    detector.outputs(np.zeros((1, size, size, 3), np.uint8))
    # The largest image that is allowed, in base64, and 1 MiB for the rest of the request.
    body = options.max_mib * 2**20 * 4 // 3 + 2**20
    direct = Direct(inside, served)
    guarded = Guarded(direct, max_body=body, timeout=options.timeout, paths=paths)
    return metrics.counting(guarded, paths)


def _add_operation(app: FastAPI, metrics: Metrics) -> None:
    """Add the routes for those who operate the server."""

    @app.get(READY, tags=["operation"], summary="Whether requests are accepted at the moment")
    async def ready() -> Response:
        """Status 503 while the bodies of requests take all the memory that they may take."""
        return Response("\n", media_type="text/plain")

    @app.get(_METRICS, tags=["operation"], summary="Counts, in the text format of Prometheus")
    async def counts() -> Response:
        """Requests by path and status, their seconds, and images and seconds of forward passes."""
        return Response(metrics.text(), media_type="text/plain; version=0.0.4")


def _as_mlflow(served: ServedDetector) -> PyFuncModel:
    class Implementation:
        def predict(self, data: pd.DataFrame, params: dict[str, Any] | None = None) -> pd.DataFrame:
            return served.predict(None, data, params)

    description = Model(signature=signature_of(served.detector.card))
    description.add_flavor("python_function", loader_module=ServedDetector.__module__)
    return PyFuncModel(description, Implementation())


def _listen(host: str, port: int) -> socket.socket:
    try:
        listening = socket.create_server((host, port), backlog=256)
    except OSError as error:
        raise UserError(
            f"--port: the server cannot listen on {host}:{port}: {error.strerror}. Give another."
        ) from error
    # Made anew, the socket knows that its protocol is TCP. Only then asyncio turns off Nagle's
    # algorithm, for which a client would wait 40 ms between the head and the body of an answer.
    return socket.socket(fileno=listening.detach())

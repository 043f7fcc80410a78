"""`synthdetect serve`: a detector on a port, by MLflow's protocol, behind limits."""

import logging
import socket
from typing import Any

import pandas as pd
import uvicorn
from mlflow.models import Model
from mlflow.pyfunc import PyFuncModel, scoring_server

from synthdetect.config import ServeOptions
from synthdetect.console import console
from synthdetect.errors import UserError
from synthdetect.serving.limits import Guarded
from synthdetect.serving.model import ServedDetector
from synthdetect.tracking.find import find_detectors
from synthdetect.tracking.model import SIGNATURE


def serve(options: ServeOptions) -> None:
    """Load one detector, without running any code that it brings, and answer until interrupted.

    Raises:
        UserError: there is no such model, or the port is taken.
    """
    if not options.model:
        raise UserError("--model: give a models:/ URI, a run id, or a .safetensors or .onnx file.")
    found = find_detectors((options.model,))
    if len(found) > 1:
        raise UserError(f"--model: {options.model} has {len(found)} detectors; give one of them.")
    listening = _listen(options.host, options.port)
    # Advice on every request of a shape that is served well.
    logging.getLogger("mlflow.pyfunc.scoring_server").setLevel(logging.ERROR)
    served = ServedDetector(found[0].detector, options)
    # An image that fills its limit, in base64, and something around it.
    body = options.max_mib * 2**20 * 4 // 3 + 2**20
    app = Guarded(scoring_server.init(_as_mlflow(served)), max_body=body, timeout=options.timeout)
    console.print(f"serving {found[0].name} on http://{options.host}:{options.port}/invocations")
    settings = uvicorn.Config(
        app, log_level="warning", timeout_keep_alive=15, server_header=False, lifespan="off"
    )
    uvicorn.Server(settings).run(sockets=[listening])


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
            f"--port: {host}:{port} cannot be listened on: {error.strerror}. Give another."
        ) from error
    return listening

"""The inference engines of exported detectors; none is imported before it is used."""

import sys
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from synthdetect.system.extras import require_extra

Squares = npt.NDArray[np.uint8]
"""Images as the network sees them, shape (images, size, size, 3)."""

Compute = Callable[[Squares], npt.NDArray[np.float32]]
"""Thread-safe function from squares to the logits of "synthetic", shape (images,)."""

WEIGHTED = ("Conv", "Gemm", "MatMul")
"""Operators with weights, which take nearly all of the time."""


def onnxruntime(graph: bytes, precision: str) -> Compute:
    import onnxruntime as runtime

    options = runtime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3  # errors, which are raised too
    session = runtime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    (given,) = session.get_inputs()

    def compute(squares: Squares) -> npt.NDArray[np.float32]:
        return np.asarray(session.run(None, {given.name: squares})[0])

    return compute


@cache
def _core() -> Any:
    """The core of OpenVINO, one per process.

    Each core sets up an alternative stack for signal handlers. If several cores are created and
    destroyed, the last one restores the stack of another core, which is freed, and the next Ctrl-C
    is a segmentation fault.
    """
    # Importing openvino sends telemetry over the network, unless this package is missing.
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    import openvino as runtime

    return runtime.Core()


def openvino(graph: bytes, precision: str) -> Compute:
    core = _core()
    settings = {
        # The default would depend on the machine.
        "INFERENCE_PRECISION_HINT": "bf16" if precision == "bf16" else "f32",
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        "ENABLE_CPU_PINNING": False,  # else all processes of a server are pinned to the same cores
    }
    compiled = core.compile_model(core.read_model(graph), "CPU", settings)

    def compute(squares: Squares) -> npt.NDArray[np.float32]:
        # A new request, since threads cannot share that of the compiled model.
        return np.asarray(compiled.create_infer_request().infer(squares)[0])

    return compute


def require(*packages: str) -> None:
    """Check that packages which only exported detectors need are installed.

    Raises:
        UserError: If a package is not installed.
    """
    require_extra("export", "an exported detector", *packages)

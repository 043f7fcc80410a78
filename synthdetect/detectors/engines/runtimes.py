"""The inference engines of exported detectors; none is imported before it is used."""

import importlib.util
import sys
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from synthdetect.system.errors import UserError

Squares = npt.NDArray[np.uint8]
"""Preprocessed images, shape (images, image_size, image_size, 3)."""

Compute = Callable[[Squares], npt.NDArray[np.float32]]
"""From squares to the logits that they are synthetic, shape (images,); threads may share one."""

WEIGHTED = ("Conv", "Gemm", "MatMul")
"""The operators with weights, where nearly all the time goes."""


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
    """OpenVINO's core, one for the process.

    Each has signals handled on a stack of its own. Where several come and go, the one that goes
    last brings back another's, which is freed, and the next Ctrl-C is a segmentation fault.
    """
    # To import openvino sends word of it over the network, unless this package is missing.
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    import openvino as runtime

    return runtime.Core()


def openvino(graph: bytes, precision: str) -> Compute:
    core = _core()
    settings = {
        # Its own choice would depend on the machine.
        "INFERENCE_PRECISION_HINT": "bf16" if precision == "bf16" else "f32",
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        "ENABLE_CPU_PINNING": False,  # else a server's processes all sit on the same cores
    }
    compiled = core.compile_model(core.read_model(graph), "CPU", settings)

    def compute(squares: Squares) -> npt.NDArray[np.float32]:
        # A request of its own: the compiled model's cannot be shared by threads.
        return np.asarray(compiled.create_infer_request().infer(squares)[0])

    return compute


def require(*packages: str) -> None:
    """See that packages that only exported detectors need are there.

    Raises:
        UserError: one is not.
    """
    missing = [name for name in packages if importlib.util.find_spec(name) is None]
    if missing:
        raise UserError(
            f"an exported detector needs {' and '.join(missing)}, not installed here: "
            f"pip install '.[export]' in the project, or pip install {' '.join(missing)}."
        )

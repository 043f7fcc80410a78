"""What computes an exported graph: a table of engines, none imported before it is used."""

import importlib.util
import sys
from collections.abc import Callable
from dataclasses import dataclass
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


@dataclass(frozen=True)
class Engine:
    """One entry of the registry.

    Attributes:
        open: from a graph, as an ONNX file's bytes, and a precision to what computes it.
        precisions: that it has on a CPU: `fp32`, `bf16`, `int8`.
        rounded: of `WEIGHTED`, the operators that are computed in 8 bits only if their results are
            rounded to 8 bits too. Without that the logits are nearer to torch's.
    """

    open: Callable[[bytes, str], Compute]
    precisions: tuple[str, ...]
    rounded: tuple[str, ...]


def _onnxruntime(graph: bytes, precision: str) -> Compute:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3  # errors, which are raised too
    session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
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
    import openvino

    return openvino.Core()


def _openvino(graph: bytes, precision: str) -> Compute:
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


ENGINES: dict[str, Engine] = {
    "onnxruntime": Engine(_onnxruntime, ("fp32", "int8"), rounded=("Conv",)),
    "openvino": Engine(_openvino, ("fp32", "bf16", "int8"), rounded=()),
}


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

"""The table of inference engines, read without importing any of them."""

from dataclasses import dataclass

from synthdetect.config.registry import Entry


@dataclass(frozen=True)
class Engine(Entry):
    """An inference engine for exported detectors.

    Its implementation takes a graph, as the bytes of an ONNX file, and a precision, and returns a
    function from preprocessed images to logits.

    Attributes:
        precisions: The precisions that it supports on a CPU: `fp32`, `bf16`, `int8`.
        rounded: Of the operators with weights, those that run in 8 bits only if their results are
            rounded to 8 bits too; for others, the logits are closer to torch's without that.
    """

    precisions: tuple[str, ...]
    rounded: tuple[str, ...]


_MODULE = "synthdetect.detectors.engines.runtimes"

ENGINES: dict[str, Engine] = {
    "onnxruntime": Engine(
        f"{_MODULE}:onnxruntime", "ONNX Runtime.", precisions=("fp32", "int8"), rounded=("Conv",)
    ),
    "openvino": Engine(
        f"{_MODULE}:openvino", "OpenVINO.", precisions=("fp32", "bf16", "int8"), rounded=()
    ),
}
"""Inference engines, by name."""

"""Conversion of a network to an ONNX graph, in floating point or quantised to 8 bits."""

import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from synthdetect.detectors.detector import Detector
from synthdetect.detectors.engines.options import ENGINES
from synthdetect.detectors.engines.runtimes import WEIGHTED, Squares

if TYPE_CHECKING:
    import onnx

INPUT, OUTPUT = "squares", "logits"


class _FromSquares(nn.Module):
    """A network that takes squares, channels last, so that they need not be copied."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, squares: Tensor) -> Tensor:
        logits: Tensor = self.network(squares.permute(0, 3, 1, 2))
        return logits


def to_graph(detector: Detector) -> "onnx.ModelProto":
    """Convert a detector's network, including the normalisation, to an ONNX graph.

    Returns:
        A graph from `squares`, uint8 of shape (images, size, size, 3) for any number of images, to
        `logits`, float32 of shape (images,). The size is the card's `seen_size`.
    """
    size = detector.card.seen_size
    example = torch.zeros(2, size, size, 3, dtype=torch.uint8)
    program = torch.onnx.export(
        _FromSquares(detector.network).eval(),
        (example,),
        input_names=[INPUT],
        output_names=[OUTPUT],
        dynamic_shapes={INPUT: {0: torch.export.Dim("images")}},
        dynamo=True,
        verbose=False,
    )
    assert program is not None
    graph: onnx.ModelProto = program.model_proto
    _remove_origin(graph)
    return graph


def quantise(
    graph: "onnx.ModelProto", engine: str, batches: Iterable[Squares]
) -> "onnx.ModelProto":
    """Quantise the weights and inputs of the operators in `WEIGHTED` to 8 bits.

    Weights have a scale per channel. Activations have one per tensor, from their range over
    training images (Jacob et al., "Quantization and Training of Neural Networks for Efficient
    Integer-Arithmetic-Only Inference", CVPR 2018, section 2).

    Args:
        graph: Graph from `to_graph`; it is modified.
        engine: Name of the engine that will compute the graph.
        batches: Squares from which the ranges are taken.

    Returns:
        A new graph.
    """
    import onnx
    from onnxruntime.quantization import QuantType, quantize_static

    # Suppresses advice to infer shapes and fold layers first, which the exporter has already done.
    graph.metadata_props.add(key="onnx.quant.pre_process", value="onnxruntime.quant")
    unrounded = [name for name in WEIGHTED if name not in ENGINES[engine].rounded]
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "int8.onnx"
        quantize_static(
            graph,
            file,
            _Reader(batches),
            op_types_to_quantize=list(WEIGHTED),
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            extra_options={"OpTypesToExcludeOutputQuantization": unrounded},
        )
        return onnx.load(file)


class _Reader:
    """Adapter from batches to the calibration data reader of ONNX Runtime."""

    def __init__(self, batches: Iterable[Squares]) -> None:
        self._batches = iter(batches)

    def get_next(self) -> dict[str, Squares] | None:
        batch = next(self._batches, None)
        return None if batch is None else {INPUT: batch}


def _remove_origin(graph: "onnx.ModelProto") -> None:
    """Remove the exporter's metadata on files of this machine and on its own steps."""
    del graph.graph.metadata_props[:]
    for part in (*graph.graph.node, *graph.graph.value_info, *graph.graph.input,
                 *graph.graph.output, *graph.graph.initializer):  # fmt: skip
        del part.metadata_props[:]

"""From a network to a graph that engines compute, in floating point or in 8 bits."""

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
    """A network that takes images as they are decoded, so that they are given without a copy."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, squares: Tensor) -> Tensor:
        logits: Tensor = self.network(squares.permute(0, 3, 1, 2))
        return logits


def to_graph(detector: Detector) -> "onnx.ModelProto":
    """The detector's network as ONNX, normalisation and all.

    Returns:
        Takes `squares`, uint8 of shape (images, image_size, image_size, 3) with any number of
        images, and gives `logits`, float32 of shape (images,).
    """
    size = detector.card.model.image_size
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
    _forget_origin(graph)
    return graph


def quantised(
    graph: "onnx.ModelProto", engine: str, batches: Iterable[Squares]
) -> "onnx.ModelProto":
    """The graph with weights, and what they are multiplied by, in 8 bits; the rest stays as it is.

    Weights get a scale a channel; activations one a tensor, from their range over images that the
    network was trained on. Jacob et al., "Quantization and Training of Neural Networks for
    Efficient Integer-Arithmetic-Only Inference", CVPR 2018, section 2.

    Args:
        graph: as `to_graph` made it.
        engine: that is to compute it.
        batches: the images to take the ranges from.
    """
    import onnx
    from onnxruntime.quantization import QuantType, quantize_static

    # What it would advise to do before, the exporter has done: shapes inferred, layers folded.
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
    """Batches in the form in which ONNX Runtime asks for them."""

    def __init__(self, batches: Iterable[Squares]) -> None:
        self._batches = iter(batches)

    def get_next(self) -> dict[str, Squares] | None:
        batch = next(self._batches, None)
        return None if batch is None else {INPUT: batch}


def _forget_origin(graph: "onnx.ModelProto") -> None:
    """Take out what the exporter noted of this machine's files and of its own steps."""
    del graph.graph.metadata_props[:]
    for part in (*graph.graph.node, *graph.graph.value_info, *graph.graph.input,
                 *graph.graph.output, *graph.graph.initializer):  # fmt: skip
        del part.metadata_props[:]

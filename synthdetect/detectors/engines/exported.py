"""Files of exported detectors: graph and card in one ONNX file.

These files are untrusted. They are parsed as data, and rejected if they refer to other files or
define operators of their own, before an engine loads them.
"""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from synthdetect.detectors.card import Card, read_card
from synthdetect.detectors.detector import Detector
from synthdetect.detectors.engines.options import ENGINES
from synthdetect.detectors.engines.runtimes import Compute, require
from synthdetect.system.errors import UserError

if TYPE_CHECKING:
    import onnx

SUFFIX = ".onnx"

_CARD = "card"
_STANDARD = ("", "ai.onnx")
"""Domains of the standard operators, which every engine implements."""


class ExportedNetwork(nn.Module):
    """A module that computes a network's logits by an engine on the CPU.

    Args:
        compute: Function of the engine, from squares to logits.
    """

    def __init__(self, compute: Compute) -> None:
        super().__init__()
        self._compute = compute

    def forward(self, images: Tensor) -> Tensor:
        squares = images.permute(0, 2, 3, 1).contiguous().cpu().numpy()
        return torch.from_numpy(self._compute(squares)).to(images.device)


def load_detector(path: Path) -> Detector:
    """Read a detector from an exported file (`.onnx`) or a safetensors file.

    Raises:
        UserError: If the file is missing, damaged, modified since it was written, or no detector.
    """
    return load_exported(path) if path.suffix.lower() == SUFFIX else Detector.load(path)


def save_exported(path: Path, graph: "onnx.ModelProto", card: Card) -> Card:
    """Write a graph and the card of its detector to an ONNX file.

    Args:
        path: The file.
        graph: The graph; its metadata are replaced.
        card: Card of the detector, with the engine and precision of the graph.

    Returns:
        The card as written, with the hash of the graph.
    """
    content = _bytes(graph)
    card = replace(
        card,
        weights_sha256=hashlib.sha256(content).hexdigest(),
        provenance={**card.provenance, "exported_from": card.weights_sha256},
    )
    graph.metadata_props.add(key=_CARD, value=json.dumps(asdict(card)))
    path.write_bytes(graph.SerializeToString(deterministic=True))
    return card


def load_exported(path: Path) -> Detector:
    """Read an exported detector and load its graph into its engine.

    Raises:
        UserError: If the file is missing, damaged, modified since it was written, not an exported
            detector or not self-contained, or if its engine is not installed.
    """
    require("onnx")
    import onnx
    from google.protobuf.message import DecodeError

    try:
        graph = onnx.ModelProto.FromString(path.read_bytes())
        header = json.loads({entry.key: entry.value for entry in graph.metadata_props}[_CARD])
    except (OSError, DecodeError, KeyError, ValueError, RecursionError) as error:
        raise UserError(f"{path}: not an exported detector, or damaged: {error!r}") from error
    card = read_card(header, path)
    if card.engine not in ENGINES or card.precision not in ENGINES[card.engine].precisions:
        raise UserError(f"{path}: unknown engine or precision: {card.engine}, {card.precision}.")
    _require_self_contained(graph, path)
    content = _bytes(graph)
    if hashlib.sha256(content).hexdigest() != card.weights_sha256:
        raise UserError(f"{path}: the graph is not the one that the card was written for.")
    require(card.engine)
    network = ExportedNetwork(_open(content, card, path))
    return Detector(network, card)


def _open(content: bytes, card: Card, path: Path) -> Compute:
    """Load a graph into its engine, and test it on two images."""
    grey = np.full((2, card.seen_size, card.seen_size, 3), 128, dtype=np.uint8)
    try:
        compute: Compute = ENGINES[card.engine].load()(content, card.precision)
        shape = compute(grey).shape
    except Exception as error:  # each engine has its own exceptions
        raise UserError(f"{path}: {card.engine} cannot compute the graph: {error}") from error
    if shape != (2,):
        raise UserError(f"{path}: the output for two images has shape {shape} instead of (2,).")
    return compute


def _bytes(graph: "onnx.ModelProto") -> bytes:
    """Remove the graph's metadata, which contain the card, and serialise it."""
    del graph.metadata_props[:]
    content: bytes = graph.SerializeToString(deterministic=True)
    return content


def _require_self_contained(graph: "onnx.ModelProto", path: Path) -> None:
    import onnx

    for part in _parts(graph):
        if isinstance(part, onnx.TensorProto) and (
            part.external_data or part.data_location == onnx.TensorProto.EXTERNAL
        ):
            raise UserError(f"{path}: refers to tensors in other files, which are not read.")
        if isinstance(part, onnx.FunctionProto) or (
            isinstance(part, onnx.NodeProto) and part.domain not in _STANDARD
        ):
            raise UserError(f"{path}: defines operators of its own, which are not run.")


def _parts(message: Any) -> Iterator[Any]:
    """A protobuf message and all messages nested in it."""
    yield message
    for field, value in message.ListFields():
        if field.message_type:
            for part in [value] if hasattr(value, "ListFields") else value:
                yield from _parts(part)

"""The whole state of a training in one safetensors file; nothing in it can execute.

Tensors are stored as such. Everything else (the model specification, the optimizer's groups, the
schedule, the progress, the origin of the initial weights) is JSON in the header of the file. A hash
of both is checked when they are read. There is no random state to save: it derives from the seed
and the epoch (see `synthdetect.images.batches`).
"""

import hashlib
import json
from dataclasses import asdict
from pathlib import Path
from textwrap import shorten
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from synthdetect.models.tensors import digest_of, tensors_of
from synthdetect.models.weights import Start
from synthdetect.system.errors import UserError
from synthdetect.system.files import replace_atomically
from synthdetect.training.loop import Progress, TrainingState

FORMAT = 7
"""Increased when the layout of the file changes, or how a training goes on from what it holds."""

_TENSOR = "tensor:"
_PARTS = ("network", "objective", "optimizer", "schedule", "scaler", "average")


def save(path: Path, training: TrainingState, start: Start) -> None:
    """Write a checkpoint; a kill at any moment leaves the old or the new one, whole."""
    tensors: dict[str, Tensor] = {}
    tree = {
        "format": FORMAT,
        "model": asdict(training.network.spec),
        "progress": asdict(training.progress),
        "start": asdict(start),
        **{part: _flatten(getattr(training, part).state_dict(), part, tensors) for part in _PARTS},
    }
    _write(path, tensors, json.dumps(tree))


def save_network(path: Path, network: nn.Module) -> None:
    """Write the weights of a network alone, as atomically as `save`."""
    _write(path, tensors_of(network), "")


def load_network(path: Path, network: nn.Module) -> None:
    """Read what `save_network` wrote into a network.

    Raises:
        UserError: If the file is absent, damaged, changed, or of another network.
    """
    tensors, _ = _read(path)
    try:
        network.load_state_dict(tensors)
    except RuntimeError as error:
        reason = shorten(str(error), 300)
        raise UserError(f"{path}: does not fit this network: {reason}") from error


def load(path: Path, training: TrainingState) -> Start:
    """Read a checkpoint into a training that was built from the same configuration.

    Returns:
        Where the initial weights of the training came from.

    Raises:
        UserError: If the file is not a whole checkpoint of this version, has changed, or is of
            another network.
    """
    tensors, text = _read(path)
    tree = _tree(path, text)
    spec = json.loads(json.dumps(asdict(training.network.spec)))
    if tree.get("model") != spec:
        raise UserError(f"{path}: is of another network: {tree.get('model')}, not {spec}.")
    try:
        for part in _PARTS:
            state = _unflatten(tree[part], tensors)
            if not isinstance(state, dict):
                raise TypeError(f"{part} is a {type(state).__name__}")
            getattr(training, part).load_state_dict(state)
        training.progress = Progress(**tree["progress"])
        start = Start(**tree["start"])
    except (RuntimeError, KeyError, ValueError, TypeError, AttributeError) as error:
        reason = shorten(str(error), 300)
        raise UserError(f"{path}: does not fit this configuration: {reason}") from error
    _match_memory_layout(training.optimizer)
    return start


def _match_memory_layout(optimizer: torch.optim.Optimizer) -> None:
    """Give each moment the memory layout of its parameter, which fused steps expect."""
    for parameter, state in optimizer.state.items():
        for name, value in state.items():
            if isinstance(value, Tensor) and value.shape == parameter.shape:
                state[name] = torch.empty_like(parameter).copy_(value)
    inner = getattr(optimizer, "optimizer", None)  # Lookahead wraps another one
    if inner is not None:
        _match_memory_layout(inner)


def _write(path: Path, tensors: dict[str, Tensor], text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    header = {"checkpoint": text, "sha256": _digest(tensors, text)}
    with replace_atomically(path) as temporary:
        save_file(tensors, temporary, metadata=header)


def _read(path: Path) -> tuple[dict[str, Tensor], str]:
    """Return the tensors and the text that `_write` wrote."""
    try:
        with safe_open(path, framework="pt") as file:
            header = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise UserError(f"{path}: not a checkpoint, or a damaged one: {error}") from error
    text = header.get("checkpoint", "")
    if header.get("sha256") != _digest(tensors, text):
        if text:
            _tree(path, text)  # another format may have no hash
        raise UserError(
            f"{path}: has changed since it was written. Restore it, or start a new run."
        )
    return tensors, text


def _digest(tensors: dict[str, Tensor], text: str) -> str:
    return hashlib.sha256(f"{digest_of(tensors)} {text}".encode()).hexdigest()


def _tree(path: Path, text: str) -> dict[str, Any]:
    try:
        tree = dict(json.loads(text))
    except (TypeError, ValueError, RecursionError) as error:
        raise UserError(f"{path}: not a checkpoint, or a damaged one: {error}") from error
    if tree.get("format") != FORMAT:
        raise UserError(
            f"{path}: checkpoint format {tree.get('format')}; this version reads {FORMAT}."
        )
    return tree


def _flatten(value: Any, name: str, tensors: dict[str, Tensor]) -> Any:
    """Replace the tensors in nested dictionaries and lists by their names."""
    if isinstance(value, Tensor):
        tensors[name] = value.detach().contiguous()
        return _TENSOR + name
    if isinstance(value, dict):  # pairs, since JSON's keys are text and an optimizer's are numbers
        return {"pairs": [[k, _flatten(v, f"{name}.{k}", tensors)] for k, v in value.items()]}
    if isinstance(value, (list, tuple)):
        return [_flatten(v, f"{name}.{i}", tensors) for i, v in enumerate(value)]
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    raise TypeError(f"{name} is a {type(value).__name__}, which a checkpoint cannot hold")


def _unflatten(value: Any, tensors: dict[str, Tensor]) -> Any:
    if isinstance(value, str) and value.startswith(_TENSOR):
        return tensors[value.removeprefix(_TENSOR)]
    if isinstance(value, dict):
        return {
            tuple(k) if isinstance(k, list) else k: _unflatten(v, tensors)
            for k, v in value["pairs"]
        }
    if isinstance(value, list):
        return [_unflatten(v, tensors) for v in value]
    return value

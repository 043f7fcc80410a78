"""The whole state of a training in one safetensors file: nothing in it can execute.

Tensors are stored as such; everything else (the optimizer's groups, the schedule, the progress) is
JSON in the file's header. Random state needs no room: it derives from the seed
and the epoch (see `synthdetect.data.batches`).
"""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from synthdetect.errors import UserError
from synthdetect.files import replace_atomically
from synthdetect.training.loop import Progress, Training

FORMAT = 2
"""Raised when the layout of the file changes."""

_TENSOR = "tensor:"
_PARTS = ("network", "objective", "optimizer", "schedule", "scaler")


def save(path: Path, training: Training) -> None:
    """Write a checkpoint; a kill at any moment leaves the old one or the new one, whole."""
    tensors: dict[str, Tensor] = {}
    tree = {
        "format": FORMAT,
        "progress": asdict(training.progress),
        **{part: _flatten(getattr(training, part).state_dict(), part, tensors) for part in _PARTS},
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    with replace_atomically(path) as temporary:
        save_file(tensors, temporary, metadata={"checkpoint": json.dumps(tree)})


def save_network(path: Path, network: nn.Module) -> None:
    """Write a network's weights alone, as atomically as `save`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    tensors = {name: value.contiguous() for name, value in network.state_dict().items()}
    with replace_atomically(path) as temporary:
        save_file(tensors, temporary)


def load_network(path: Path, network: nn.Module) -> None:
    """Read what `save_network` wrote.

    Raises:
        UserError: damaged, absent, or of another network.
    """
    try:
        network.load_state_dict(load_file(path))
    except (OSError, SafetensorError, RuntimeError) as error:
        raise UserError(f"{path}: does not fit this network, or is damaged: {error}") from error


def load(path: Path, training: Training) -> None:
    """Put a checkpoint's state into a training built from the same configuration.

    Raises:
        UserError: not a whole checkpoint of this program's, or one of another network.
    """
    tree = _header(path)
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        for part in _PARTS:
            getattr(training, part).load_state_dict(_unflatten(tree[part], tensors))
    except (SafetensorError, RuntimeError, KeyError, ValueError) as error:
        raise UserError(f"{path}: does not fit this configuration: {error}") from error
    _match_memory_layout(training.optimizer)
    training.progress = Progress(**tree["progress"])


def _match_memory_layout(optimizer: torch.optim.Optimizer) -> None:
    """Lay each moment out in memory as its parameter is: fused steps walk both side by side."""
    for parameter, state in optimizer.state.items():
        for name, value in state.items():
            if isinstance(value, Tensor) and value.shape == parameter.shape:
                state[name] = torch.empty_like(parameter).copy_(value)
    inner = getattr(optimizer, "optimizer", None)  # Lookahead goes around another
    if inner is not None:
        _match_memory_layout(inner)


def _header(path: Path) -> dict[str, Any]:
    try:
        with safe_open(path, framework="pt") as file:
            tree = dict(json.loads((file.metadata() or {})["checkpoint"]))
    except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
        raise UserError(f"{path}: no checkpoint, or a damaged one: {error}") from error
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

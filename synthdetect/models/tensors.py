"""A network's tensors as a file holds them, and the hash by which they are known again."""

import hashlib

import torch
from torch import Tensor, nn


def tensors_of(network: nn.Module) -> dict[str, Tensor]:
    """A network's tensors by name, as a file holds them."""
    return {k: v.detach().cpu().contiguous() for k, v in network.state_dict().items()}


def digest_of(tensors: dict[str, Tensor]) -> str:
    """SHA-256 of tensors with their names, types and shapes."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        value = tensors[name].detach().cpu().contiguous()
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
        digest.update(value.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()

"""Detectors for tests: untrained ones whose scores differ, and files with a changed card."""

import copy
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from synthdetect.models.networks import Network, build
from synthdetect.models.spec import ModelSpec


def varied_network(spec: ModelSpec, seed: int = 0) -> Network:
    """Return an untrained network whose scores of images of noise differ."""
    torch.manual_seed(seed)
    network = build(spec)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0
    nn.init.normal_(network.head.weight, std=0.05)  # some architectures initialise it to zero
    with torch.no_grad():  # the scores differ with the batch normalisation statistics of noise
        network.train()
        side = spec.image_size
        network(torch.randint(0, 256, (16, 3, side, side), dtype=torch.uint8))
    return network


def with_fields(card: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return the JSON of a card with some fields replaced.

    Args:
        card: The card.
        changes: New values by name; "model.arch" names the field `arch` of the field `model`.
    """
    changed = copy.deepcopy(dict(card))
    for name, value in changes.items():
        *parts, last = name.split(".")
        place = changed
        for part in parts:
            place = place[part]
        place[last] = value
    return changed


def card_of(file: Path) -> dict[str, Any]:
    """Return the JSON of the card in a safetensors file."""
    with safe_open(file, framework="pt") as opened:
        card: dict[str, Any] = json.loads(opened.metadata()["card"])
    return card


def with_card(source: Path, target: Path, changes: Mapping[str, Any], **tensors: Tensor) -> Path:
    """Write a detector's file with fields of its card, and tensors, replaced."""
    card = json.dumps(with_fields(card_of(source), changes))
    save_file(load_file(source) | tensors, target, {"card": card})
    return target


def in_format_2(card: Mapping[str, Any]) -> dict[str, Any]:
    """Return the card as versions before format 3 wrote it."""
    model, decision = card["model"], card["decision"]
    return {
        "arch": model["arch"],
        "image_size": model["image_size"],
        "geometry": card["geometry"],
        "calibration": decision["calibration"],
        "threshold": decision["threshold"],
        "unsure": decision["unsure"],
        "provenance": card["provenance"],
        "weights_sha256": card["weights_sha256"],
        "equalise_quality": card["equalise_quality"],
        "engine": card["engine"],
        "precision": card["precision"],
        "classes": card["classes"],
        "mean": model["mean"],
        "std": model["std"],
        "synthdetect": "0.1.0",
        "format": 2,
    }

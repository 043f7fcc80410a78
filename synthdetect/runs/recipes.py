"""Recipes: named differences from the default options of a training."""

from collections.abc import Mapping
from typing import Any

AUGMENTATIONS: dict[str, Mapping[str, Any]] = {
    "light": {},  # the defaults: flip, light colour jitter and blur
    "extensive": {"geometry": "resize_crop", "rotation": 10.0, "jitter": 0.2},
}
"""The data augmentation of the paper's two regimes."""

RECIPES: dict[str, Mapping[str, Any]] = {
    # What both regimes of the paper share is in the defaults.
    "baseline": {},
    # Configuration 1: narrow data (700,000 images of 20 categories, balanced), light augmentation.
    "constrained": {"arch": "resnet18", "per_category": 35_000},
    # Configuration 2: diverse data, extensive augmentation, and a part of the validation set
    # (2,000 of its 10,000 images) for fine-tuning.
    "open": {"arch": "resnet50", **AUGMENTATIONS["extensive"], "finetune": 0.2},
}
"""Differences from the defaults by option name."""

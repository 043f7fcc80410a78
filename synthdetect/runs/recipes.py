"""Recipes: named differences from the default options of a training."""

from collections.abc import Mapping
from typing import Any

AUGMENTATIONS: dict[str, Mapping[str, Any]] = {
    "light": {},  # the defaults: flip, light colour jitter and blur
    "extensive": {"rotation": 10.0, "jitter": 0.2},
}
"""The data augmentation of the paper's two regimes, without their geometry."""

GEOMETRIES: dict[str, Mapping[str, Any]] = {
    "resize": {},  # the default
    "resize_crop": {"geometry": "resize_crop"},
}
"""The geometry of the paper's two regimes."""

FACTORS: dict[str, tuple[str, ...]] = {
    "architecture": (),  # its levels are the option archs
    "data": ("narrow", "matched", "diverse"),
    "augmentation": tuple(AUGMENTATIONS),
    "geometry": tuple(GEOMETRIES),
}
"""What sets the paper's two regimes apart, with its levels.

The matched data are drawn from the diverse ones, and are as many images as the narrow ones.
"""

RECIPES: dict[str, Mapping[str, Any]] = {
    # What both regimes of the paper share is in the defaults.
    "baseline": {},
    # Configuration 1: narrow data (700,000 images of 20 categories, balanced), light augmentation.
    "constrained": {"arch": "resnet18", "per_category": 35_000},
    # Configuration 2: diverse data, extensive augmentation, and a part of the validation set
    # (2,000 of its 10,000 images) for fine-tuning.
    "open": {
        "arch": "resnet50",
        **AUGMENTATIONS["extensive"],
        **GEOMETRIES["resize_crop"],
        "finetune": 0.2,
    },
    # Not of the paper: a shallow network on residuals of neighbouring pixels, trained on crops at
    # native resolution. Laundering keeps it from learning blur, enlargement or compression, and
    # averaged weights let it be trained for long. See docs/training.md for how it was chosen.
    "forensic": {
        "arch": "resnet18_layer2",
        "front_end": "npr",
        "weights": "none",
        "geometry": "center_crop",
        "crop": 96,
        "jitter": 0.0,
        "blur": 0.0,
        "resample_real": 0.33,
        "degrade": 0.3,
        "recompress": 1.0,
        "lr": 2e-3,
        "epochs": 160,
        "patience": 160,
        "average": "ema",
    },
    # Not of the paper: logistic regression on the features of a network that knows ImageNet, which
    # trains in seconds. See docs/features.md.
    "probe": {
        "arch": "efficientnet_lite0",
        "weights": "imagenet",
        "probe": "linear",
        "geometry": "center_crop",
        "hflip": 0.0,
        "jitter": 0.0,
        "blur": 0.0,
        "precision": "fp32",
        "lr": 1e-3,
    },
}
"""Differences from the defaults by option name."""

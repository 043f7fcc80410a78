"""Registry of methods that mix the images of a batch, and their labels, in pairs.

Unlike the augmentation of single images (`synthdetect.images.augmentation`), mixing depends on the
batch and is seeded by (seed, epoch, number of the batch).
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torchvision.transforms import v2

from synthdetect.images.options import AugmentationOptions

_DRAWS = 1  # sets the seeds of batches apart from those of images


@dataclass(frozen=True)
class Mixing:
    """A method that mixes images and labels.

    Attributes:
        alpha: Returns alpha of the Beta distribution of its share from the options; 0 is off.
        make: Makes a transform of torchvision, of images and class probabilities, from alpha.
        help: One line for `synthdetect list`.
    """

    alpha: Callable[[AugmentationOptions], float]
    make: Callable[..., Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]]
    help: str


def _mixup_alpha(options: AugmentationOptions) -> float:
    return options.mixup


def _cutmix_alpha(options: AugmentationOptions) -> float:
    return options.cutmix


MIXINGS: dict[str, Mixing] = {
    "mixup": Mixing(_mixup_alpha, v2.MixUp, "Blends images and their labels (Zhang et al. 2018)."),
    "cutmix": Mixing(
        _cutmix_alpha, v2.CutMix, "Pastes a box, and its share of the label (Yun et al. 2019)."
    ),
}


def mix(
    images: Tensor, targets: Tensor, options: AugmentationOptions, seed: tuple[int, int, int]
) -> tuple[Tensor, Tensor]:
    """Mix each image of a batch, and its label, with the one before it.

    Args:
        images: float of shape (batch, 3, height, width).
        targets: From 0 to 1, of shape (batch,).
        options: The methods that are on; if several are, each batch draws one.
        seed: (seed, epoch, number of the batch), from which everything random derives.

    Returns:
        The mixed images and targets; the given ones if no method is on.
    """
    on = [mixing for mixing in MIXINGS.values() if mixing.alpha(options)]
    if not on:
        return images, targets
    random = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(_DRAWS,)))
    mixing = on[random.integers(len(on))]
    classes = torch.stack([1 - targets, targets], dim=1)
    with torch.random.fork_rng(devices=[]):  # the transforms draw from the CPU's generator
        torch.default_generator.manual_seed(int(random.integers(2**63)))
        images, classes = mixing.make(alpha=mixing.alpha(options))(images, classes)
    return images, classes[:, 1]

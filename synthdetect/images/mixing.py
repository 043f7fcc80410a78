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
    """One entry of the registry.

    Attributes:
        alpha: of the Beta distribution that its share is drawn from, as options say; 0 is off.
        make: alpha to torchvision's transform of images and of probabilities of the classes.
        help: one line.
    """

    alpha: Callable[[AugmentationOptions], float]
    make: Callable[..., Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]]
    help: str


def _mixup_alpha(options: AugmentationOptions) -> float:
    return options.mixup


def _cutmix_alpha(options: AugmentationOptions) -> float:
    return options.cutmix


MIXINGS: dict[str, Mixing] = {
    "mixup": Mixing(_mixup_alpha, v2.MixUp, "blends images and their labels (Zhang et al. 2018)"),
    "cutmix": Mixing(
        _cutmix_alpha, v2.CutMix, "pastes a box, and its share of the label (Yun et al. 2019)"
    ),
}


def mix(
    images: Tensor, targets: Tensor, options: AugmentationOptions, seed: tuple[int, int, int]
) -> tuple[Tensor, Tensor]:
    """Mix each image of a batch, and its label, with the one before it.

    Args:
        images: float, shape (batch, 3, height, width).
        targets: 0 to 1, shape (batch,).
        options: which ways are on; of several, each batch draws one.
        seed: (seed, epoch, number of the batch), of everything drawn.

    Returns:
        Mixed images and targets; those given, where nothing is on.
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

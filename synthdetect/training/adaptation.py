"""Making features of labelled and of unlabelled images alike: a table of methods.

Each is a module that is called with the features of both kinds (float32, shape (images, features);
as the last layer sees them) and the share of the training that is done, and returns a loss.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_HIDDEN = 256  # units of DANN's discriminator


@dataclass(frozen=True)
class Adaptation:
    """One entry of the registry.

    Attributes:
        make: number of features to a module.
        help: one line.
    """

    make: Callable[[int], nn.Module]
    help: str


class Dann(nn.Module):
    """Features from which a discriminator cannot tell the kinds apart (Ganin et al. 2016).

    The discriminator learns to tell them apart while its gradient reaches the features reversed,
    by a factor that grows from 0 to 1. Its weights are trained and saved with the network's, and
    are no part of the detector.
    """

    def __init__(self, features: int) -> None:
        super().__init__()
        self.discriminator = nn.Sequential(
            nn.Linear(features, _HIDDEN), nn.ReLU(), nn.Linear(_HIDDEN, 1)
        )

    def forward(self, source: Tensor, target: Tensor, progress: float) -> Tensor:
        reversed_ = _Reversed.apply(torch.cat([source, target]), reversal(progress))
        logits = self.discriminator(reversed_).squeeze(1)
        kinds = torch.zeros_like(logits)
        kinds[len(source) :] = 1
        losses = F.binary_cross_entropy_with_logits(logits, kinds, reduction="none")
        # Each kind counts one half, however many images of it there are.
        return (losses[: len(source)].mean() + losses[len(source) :].mean()) / 2


class Coral(nn.Module):
    """Equal covariances of the features of both kinds (deep CORAL, Sun and Saenko 2016)."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.scale = 1 / (4 * features**2)

    def forward(self, source: Tensor, target: Tensor, progress: float) -> Tensor:
        difference = torch.cov(source.T) - torch.cov(target.T)
        return difference.square().sum() * self.scale


ADAPTATIONS: dict[str, Adaptation] = {
    "dann": Adaptation(Dann, "a discriminator's gradient, reversed (Ganin et al. 2016)"),
    "coral": Adaptation(Coral, "distance of the features' covariances (Sun and Saenko 2016)"),
}


def reversal(progress: float) -> float:
    """Ganin et al.'s factor of the reversed gradient, from 0 at the start towards 1."""
    return 2 / (1 + math.exp(-10 * progress)) - 1


class _Reversed(torch.autograd.Function):
    """The identity, whose gradient is multiplied by minus a factor."""

    @staticmethod
    def forward(ctx: Any, features: Tensor, factor: float) -> Tensor:
        ctx.factor = factor
        return features.view_as(features)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return -ctx.factor * gradient, None

"""Adaptation: losses that make the features of labelled and unlabelled images alike.

`synthdetect.training.options.ADAPTATIONS` names them. Each is a module that takes the features of
the labelled and of the unlabelled images (float32 of shape (images, features), the input of the
last layer) and the share of the training that is done (0 to 1), and returns a loss.
"""

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_HIDDEN = 256  # units of DANN's discriminator


class Dann(nn.Module):
    """Domain-adversarial training (Ganin et al. 2016).

    A discriminator learns to tell labelled from unlabelled images by their features, while its
    gradient reaches the features reversed, by a factor that grows from 0 to 1. Its weights are
    trained and saved with the network's, but are not part of the detector.
    """

    def __init__(self, features: int) -> None:
        super().__init__()
        self.discriminator = nn.Sequential(
            nn.Linear(features, _HIDDEN), nn.ReLU(), nn.Linear(_HIDDEN, 1)
        )

    def forward(self, source: Tensor, target: Tensor, progress: float) -> Tensor:
        reversed_ = _Reversed.apply(torch.cat([source, target]), reversal(progress))
        logits = self.discriminator(reversed_).squeeze(1)
        domains = torch.zeros_like(logits)
        domains[len(source) :] = 1
        losses = F.binary_cross_entropy_with_logits(logits, domains, reduction="none")
        # Both domains count equally, whatever their numbers of images.
        return (losses[: len(source)].mean() + losses[len(source) :].mean()) / 2


class Coral(nn.Module):
    """The squared distance of the features' covariances (deep CORAL, Sun and Saenko 2016)."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.scale = 1 / (4 * features**2)

    def forward(self, source: Tensor, target: Tensor, progress: float) -> Tensor:
        difference = torch.cov(source.T) - torch.cov(target.T)
        return difference.square().sum() * self.scale


def reversal(progress: float) -> float:
    """Return the factor of the reversed gradient, from 0 towards 1 (Ganin et al. 2016)."""
    return 2 / (1 + math.exp(-10 * progress)) - 1


class _Reversed(torch.autograd.Function):
    """The identity; its gradient is multiplied by a negative factor."""

    @staticmethod
    def forward(ctx: Any, features: Tensor, factor: float) -> Tensor:
        ctx.factor = factor
        return features.view_as(features)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return -ctx.factor * gradient, None

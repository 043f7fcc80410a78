"""Adaptation: losses that make the features of labelled and unlabelled images alike.

`synthdetect.training.options.ADAPTATIONS` names them. Each is made for a number of features, and is
a module that takes the features of the labelled and of the unlabelled images (float32 of shape
(images, features), the input of the last layer) and the share of the training that is done (0 to
1), and returns a loss. AdaBN alone has no loss.
"""

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_HIDDEN = 256  # units of DANN's discriminator
_TINY = torch.finfo(torch.float32).tiny  # instead of a divisor of zero
_BANDWIDTHS = (0.25, 0.5, 1.0, 2.0, 4.0)  # of the kernels of MMD


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
    """The squared distance of the features' covariances (deep CORAL, Sun and Saenko 2016).

    The paper divides it by 4 d^2, for the d <= 31 outputs of its last layer. The d features here
    are 512 to 2,048, of which a batch spans a small subspace, and the gradient would vanish by that
    measure. The distance is divided by the sum of the covariances' own squared norms instead. So
    a weight means the same whatever the number and the scale of the features, and smaller features
    do not make a smaller loss.
    """

    def __init__(self, features: int) -> None:
        super().__init__()

    def forward(self, source: Tensor, target: Tensor, progress: float) -> Tensor:
        first, second = torch.cov(source.T), torch.cov(target.T)
        size = first.square().sum() + second.square().sum()
        return (first - second).square().sum() / size.clamp(min=_TINY)


class Mmd(nn.Module):
    """The squared maximum mean discrepancy of the features (Long et al. 2015).

    The kernel is the mean of Gaussian kernels exp(-d^2 / b) of the distance d of two features,
    whose bandwidths b are multiples of the batch's mean squared distance. The estimate is
    the unbiased one (Gretton et al. 2012, equation 3), so that it is 0 in expectation for equal
    distributions.
    """

    def __init__(self, features: int) -> None:
        super().__init__()

    def forward(self, source: Tensor, target: Tensor, progress: float) -> Tensor:
        both = torch.cat([source, target])
        squares = both.square().sum(dim=1)
        distances = (squares[:, None] + squares - 2 * both @ both.T).clamp(min=0)
        mean = _mean_of_pairs(distances.detach()).clamp(min=_TINY)
        kernels = [(-distances / (factor * mean)).exp() for factor in _BANDWIDTHS]
        kernel = torch.stack(kernels).mean(dim=0)
        n = len(source)
        within = _mean_of_pairs(kernel[:n, :n]) + _mean_of_pairs(kernel[n:, n:])
        return within - 2 * kernel[:n, n:].mean()


def adabn(features: int) -> None:
    """Add no loss: AdaBN (Li et al. 2016) acts on the statistics that evaluation uses.

    See `synthdetect.training.evaluated`.
    """


def reversal(progress: float) -> float:
    """Return the factor of the reversed gradient, from 0 towards 1 (Ganin et al. 2016)."""
    return 2 / (1 + math.exp(-10 * progress)) - 1


def _mean_of_pairs(values: Tensor) -> Tensor:
    """Return the mean of a square matrix without its diagonal."""
    n = len(values)
    return (values.sum() - values.diagonal().sum()) / max(n * (n - 1), 1)


class _Reversed(torch.autograd.Function):
    """The identity; its gradient is multiplied by a negative factor."""

    @staticmethod
    def forward(ctx: Any, features: Tensor, factor: float) -> Tensor:
        ctx.factor = factor
        return features.view_as(features)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return -ctx.factor * gradient, None

"""Losses over the labels; `synthdetect.training.options.LOSSES` names them.

Each gives the mean loss of a batch, in which every image may have a weight.
"""

import torch.nn.functional as F
from torch import Tensor
from torchvision.ops import sigmoid_focal_loss

from synthdetect.training.options import LOSSES, LossOptions


def bce(
    logits: Tensor, targets: Tensor, options: LossOptions, weights: Tensor | None = None
) -> Tensor:
    return F.binary_cross_entropy_with_logits(logits, targets, weights)


def focal(
    logits: Tensor, targets: Tensor, options: LossOptions, weights: Tensor | None = None
) -> Tensor:
    # alpha=-1 weights both classes equally, so that gamma=0 is cross-entropy.
    losses: Tensor = sigmoid_focal_loss(
        logits, targets, alpha=-1, gamma=options.focal_gamma, reduction="none"
    )
    return (losses if weights is None else weights * losses).mean()


def loss_of(logits: Tensor, targets: Tensor, options: LossOptions) -> Tensor:
    """Return the loss that the options name, of smoothed targets.

    Args:
        logits: float32 of shape (batch,).
        targets: Likewise, from 0 to 1; a value in between is a mixture of both labels.
        options: The loss, its parameters, the label smoothing (Szegedy et al. 2016), and the
            weight of synthetic images as a number; that of real ones is 1, and that of a mixture
            lies in between.

    Returns:
        The mean over the batch.
    """
    weight = float(options.pos_weight)
    # Without weights, PyTorch rounds otherwise than with weights of 1.
    weights = None if weight == 1 else 1 + (weight - 1) * targets
    loss: Tensor = LOSSES[options.loss].load()(
        logits, smooth(targets, options.label_smoothing), options, weights
    )
    return loss


def smooth(targets: Tensor, amount: float) -> Tensor:
    """Move targets towards 0.5: 0 to amount / 2, and 1 to 1 - amount / 2."""
    return targets * (1 - amount) + amount / 2

"""Losses over the labels; `synthdetect.training.options.LOSSES` names them."""

import torch.nn.functional as F
from torch import Tensor
from torchvision.ops import sigmoid_focal_loss

from synthdetect.training.options import LOSSES, LossOptions


def bce(logits: Tensor, targets: Tensor, options: LossOptions) -> Tensor:
    return F.binary_cross_entropy_with_logits(logits, targets)


def focal(logits: Tensor, targets: Tensor, options: LossOptions) -> Tensor:
    # alpha=-1 weights both classes equally, so that gamma=0 is cross-entropy.
    loss: Tensor = sigmoid_focal_loss(
        logits, targets, alpha=-1, gamma=options.focal_gamma, reduction="mean"
    )
    return loss


def loss_of(logits: Tensor, targets: Tensor, options: LossOptions) -> Tensor:
    """Return the loss that the options name, of smoothed targets.

    Args:
        logits: float32 of shape (batch,).
        targets: Likewise, from 0 to 1; a value in between is a mixture of both labels.
        options: The loss, its parameters, and the label smoothing (Szegedy et al. 2016).

    Returns:
        The mean over the batch.
    """
    loss: Tensor = LOSSES[options.loss].load()(
        logits, smooth(targets, options.label_smoothing), options
    )
    return loss


def smooth(targets: Tensor, amount: float) -> Tensor:
    """Move targets towards 0.5: 0 to amount / 2, and 1 to 1 - amount / 2."""
    return targets * (1 - amount) + amount / 2

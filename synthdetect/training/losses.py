"""What a training minimises over the labels: a table of losses."""

from collections.abc import Callable
from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor
from torchvision.ops import sigmoid_focal_loss

from synthdetect.config import LossOptions


@dataclass(frozen=True)
class Loss:
    """One entry of the registry.

    Attributes:
        of: logits and targets (0 to 1) of shape (batch,), and the options, to the batch's mean.
        help: one line.
    """

    of: Callable[[Tensor, Tensor, LossOptions], Tensor]
    help: str


def _bce(logits: Tensor, targets: Tensor, options: LossOptions) -> Tensor:
    return F.binary_cross_entropy_with_logits(logits, targets)


def _focal(logits: Tensor, targets: Tensor, options: LossOptions) -> Tensor:
    # alpha=-1: no weights of the classes, so that gamma=0 is cross-entropy.
    loss: Tensor = sigmoid_focal_loss(
        logits, targets, alpha=-1, gamma=options.focal_gamma, reduction="mean"
    )
    return loss


LOSSES: dict[str, Loss] = {
    "bce": Loss(_bce, "binary cross-entropy"),
    "focal": Loss(_focal, "cross-entropy times (1 - p)^gamma, p of the label (Lin et al. 2017)"),
}


def loss_of(logits: Tensor, targets: Tensor, options: LossOptions) -> Tensor:
    """The loss that the options name, of targets smoothed as they say.

    Args:
        logits: float32, shape (batch,).
        targets: 0 to 1, likewise; anything between is a label mixed of both.
        options: which loss, its gamma, and the smoothing of labels (Szegedy et al. 2016).

    Returns:
        The mean over the batch.
    """
    return LOSSES[options.loss].of(logits, smooth(targets, options.label_smoothing), options)


def smooth(targets: Tensor, amount: float) -> Tensor:
    """Move targets towards one half: 0 to amount / 2, 1 to 1 - amount / 2."""
    return targets * (1 - amount) + amount / 2

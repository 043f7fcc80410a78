"""Images changed within a small distance to mislead the network: a table of attacks.

An attack goes against the network as it will be used: in evaluation mode (the running statistics of
its normalisation layers, which the attack thereby leaves alone; no dropout) and in fp32. The step
that then trains on the changed images is an ordinary one.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from synthdetect.config import AdversarialOptions

Direction = Callable[[Tensor], Tensor]
"""From images to the sign of the loss's gradient with respect to them."""


@dataclass(frozen=True)
class Attack:
    """One entry of the registry.

    Attributes:
        change: images (0 to 255) and the direction in which the loss grows, to changed images.
        help: one line.
    """

    change: Callable[[Tensor, Direction, AdversarialOptions], Tensor]
    help: str


def _fgsm(images: Tensor, uphill: Direction, options: AdversarialOptions) -> Tensor:
    return (images + options.adversarial_epsilon * uphill(images)).clamp_(0, 255)


def _pgd(images: Tensor, uphill: Direction, options: AdversarialOptions) -> Tensor:
    """Steps of 2.5 epsilon / steps, which can reach the border from anywhere (Madry et al.)."""
    epsilon, steps = options.adversarial_epsilon, options.adversarial_steps
    low, high = (images - epsilon).clamp_(min=0), (images + epsilon).clamp_(max=255)
    changed = torch.empty_like(images).uniform_(-epsilon, epsilon).add_(images).clamp_(0, 255)
    for _ in range(steps):
        changed = (changed + 2.5 * epsilon / steps * uphill(changed)).clamp_(low, high)
    return changed


ATTACKS: dict[str, Attack] = {
    "fgsm": Attack(_fgsm, "one step along the gradient's sign (Goodfellow et al. 2015)"),
    "pgd": Attack(_pgd, "several, from a random start in the ball (Madry et al. 2018)"),
}


def attacked(
    network: nn.Module, images: Tensor, targets: Tensor, options: AdversarialOptions
) -> Tensor:
    """Change the first images of a batch, `adversarial_share` of it (batches are in random order).

    Args:
        network: left in the mode it was in, without gradients of its weights.
        images: float, 0 to 255, shape (batch, 3, height, width).
        targets: 0 to 1, shape (batch,).
        options: which attack, how far and how many.

    Returns:
        New images; none differs from its own by more than `adversarial_epsilon`.
    """
    count = round(options.adversarial_share * len(images))
    if not count:
        return images

    def uphill(changed: Tensor) -> Tensor:
        changed = changed.detach().requires_grad_()
        # The sum: each image's own gradient, whatever the others are.
        loss = F.binary_cross_entropy_with_logits(
            network(changed).float(), targets[:count], reduction="sum"
        )
        return torch.autograd.grad(loss, changed)[0].sign()

    training = network.training
    network.eval()
    try:
        result = images.clone()
        attack = ATTACKS[options.adversarial]
        result[:count] = attack.change(images[:count], uphill, options)
    finally:
        network.train(training)
    return result

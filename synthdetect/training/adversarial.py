"""Attacks: images changed within a small distance to mislead the network.

`synthdetect.training.options.ATTACKS` names them. An attack is computed against the network in
evaluation mode (running statistics, no dropout) and in fp32, and changes neither. The step that
then trains on the changed images is an ordinary one.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from synthdetect.training.options import ATTACKS, AdversarialOptions

Direction = Callable[[Tensor], Tensor]
"""A function from images to the sign of the gradient of their loss."""


Attack = Callable[[Tensor, Direction, AdversarialOptions], Tensor]
"""A function from images (0 to 255) and the direction in which their loss grows to new images."""


def fgsm(images: Tensor, uphill: Direction, options: AdversarialOptions) -> Tensor:
    return (images + options.adversarial_epsilon * uphill(images)).clamp_(0, 255)


def pgd(images: Tensor, uphill: Direction, options: AdversarialOptions) -> Tensor:
    """Change images by projected gradient steps of size 2.5 epsilon / steps (Madry et al. 2018)."""
    epsilon, steps = options.adversarial_epsilon, options.adversarial_steps
    low, high = (images - epsilon).clamp_(min=0), (images + epsilon).clamp_(max=255)
    changed = torch.empty_like(images).uniform_(-epsilon, epsilon).add_(images).clamp_(0, 255)
    for _ in range(steps):
        changed = (changed + 2.5 * epsilon / steps * uphill(changed)).clamp_(low, high)
    return changed


def attacked(
    network: nn.Module, images: Tensor, targets: Tensor, options: AdversarialOptions
) -> Tensor:
    """Attack the first `adversarial_share` of a batch, whose images are in random order.

    Args:
        network: The network to mislead; its mode and the gradients of its weights stay unchanged.
        images: float, from 0 to 255, of shape (batch, 3, height, width).
        targets: From 0 to 1, of shape (batch,).
        options: The attack, its size and the share of images.

    Returns:
        New images, of which no pixel differs from the original by more than `adversarial_epsilon`.
    """
    count = round(options.adversarial_share * len(images))
    if not count:
        return images

    def uphill(changed: Tensor) -> Tensor:
        changed = changed.detach().requires_grad_()
        # The sum gives each image its own gradient, whatever the others are.
        loss = F.binary_cross_entropy_with_logits(
            network(changed).float(), targets[:count], reduction="sum"
        )
        return torch.autograd.grad(loss, changed)[0].sign()

    training = network.training
    network.eval()
    try:
        result = images.clone()
        attack: Attack = ATTACKS[options.adversarial].load()
        result[:count] = attack(images[:count], uphill, options)
    finally:
        network.train(training)
    return result

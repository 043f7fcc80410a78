"""What one training step minimises: the labels' loss and whatever the options add to it."""

from typing import NamedTuple, cast

import torch
from torch import Tensor, nn

from synthdetect.config import TrainOptions
from synthdetect.models.networks import Network
from synthdetect.training.adaptation import ADAPTATIONS
from synthdetect.training.adversarial import ATTACKS, attacked
from synthdetect.training.devices import Device
from synthdetect.training.losses import loss_of


class Step(NamedTuple):
    """What a training step works on, on the device that trains.

    Attributes:
        images: float, 0 to 255, shape (batch, 3, size, size), channels last in memory.
        targets: 0 (real) to 1 (synthetic), shape (batch,).
        epochs: how many are done, with the fraction of the present one.
        unlabelled: further images, as `images`, for an adaptation.
    """

    images: Tensor
    targets: Tensor
    epochs: float = 0.0
    unlabelled: Tensor | None = None


class Objective(nn.Module):
    """The loss of a step. A module, since an adaptation may have weights that learn too.

    Args:
        options: what is minimised.
        device: gives the precision of the forward pass.
        network: what will be trained; not kept.
    """

    def __init__(self, options: TrainOptions, device: Device, network: nn.Module) -> None:
        super().__init__()
        self.options, self.device = options, device
        self.adaptation: nn.Module | None = None
        if options.adaptation in ADAPTATIONS:
            features = cast(Network, network).head.in_features
            self.adaptation = ADAPTATIONS[options.adaptation].make(features)

    def forward(self, network: nn.Module, step: Step) -> tuple[Tensor, Tensor]:
        """Loss and logits of the step's images (changed, if the options say so).

        Labelled and unlabelled images go through the network as one batch, and so normalisation
        layers see both, as evaluation will.
        """
        options, images, targets = self.options, step.images, step.targets
        progress = step.epochs / options.epochs
        if options.adversarial in ATTACKS and progress >= options.adversarial_from:
            images = attacked(network, images, targets, options)
        if self.adaptation is None:
            with self.device.autocast():
                logits = network(images)
            return loss_of(logits.float(), targets, options), logits
        assert step.unlabelled is not None
        with self.device.autocast():
            both = torch.cat([images, step.unlabelled])
            logits, features = cast(Network, network).with_features(both)
        logits, features = logits[: len(images)], features.float()
        distance = self.adaptation(features[: len(images)], features[len(images) :], progress)
        loss = loss_of(logits.float(), targets, options)
        return loss + options.adaptation_weight * distance, logits

"""What one training step minimises: the loss over the labels and what the options add to it."""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from synthdetect.models.networks import Network
from synthdetect.training.adversarial import attacked
from synthdetect.training.devices import Device
from synthdetect.training.losses import loss_of
from synthdetect.training.options import ADAPTATIONS, ATTACKS, TrainingOptions


class Step(NamedTuple):
    """What a training step works on, on the device that trains.

    Attributes:
        images: float, from 0 to 255, of shape (batch, 3, size, size), channels last in memory.
        targets: From 0 (real) to 1 (synthetic), of shape (batch,).
        epochs: Epochs that are done, with the fraction of the present one.
        unlabelled: Further images, like `images`, for an adaptation.
    """

    images: Tensor
    targets: Tensor
    epochs: float = 0.0
    unlabelled: Tensor | None = None


class Objective(nn.Module):
    """The loss of a step. It is a module because an adaptation may have weights that learn too.

    Args:
        options: What is minimised.
        device: Gives the precision of the forward pass.
        network: The network that will be trained; it is not kept.
    """

    def __init__(self, options: TrainingOptions, device: Device, network: Network) -> None:
        super().__init__()
        self.options, self.device = options, device
        self.adaptation: nn.Module | None = None
        if options.adaptation.adaptation in ADAPTATIONS:
            make = ADAPTATIONS[options.adaptation.adaptation].load()
            self.adaptation = make(network.head.in_features)

    def forward(self, network: Network, step: Step) -> tuple[Tensor, Tensor]:
        """Return the loss and the logits of the step's images, attacked if the options say so.

        Labelled and unlabelled images go through the network as one batch, so that normalisation
        layers see both, as evaluation will.
        """
        options, images, targets = self.options, step.images, step.targets
        attack = options.adversarial
        progress = step.epochs / options.optim.epochs
        if attack.adversarial in ATTACKS and progress >= attack.adversarial_from:
            images = attacked(network, images, targets, attack)
        if self.adaptation is None:
            with self.device.autocast():
                logits = network(images)
            return loss_of(logits.float(), targets, options.loss), logits
        assert step.unlabelled is not None
        with self.device.autocast():
            both = torch.cat([images, step.unlabelled])
            logits, features = network.with_features(both)
        logits, features = logits[: len(images)], features.float()
        distance = self.adaptation(features[: len(images)], features[len(images) :], progress)
        loss = loss_of(logits.float(), targets, options.loss)
        return loss + options.adaptation.adaptation_weight * distance, logits

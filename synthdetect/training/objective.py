"""What one training step minimises: the loss over the labels and what the options add to it."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from synthdetect.images.batches import Part
from synthdetect.models.networks import Network
from synthdetect.training.adversarial import attacked
from synthdetect.training.attribution import attribution_loss
from synthdetect.training.devices import Device, require_compiler
from synthdetect.training.losses import loss_of
from synthdetect.training.options import ADAPTATIONS, ATTACKS, SEMI_SUPERVISED, TrainingOptions
from synthdetect.training.semi_supervised import SemiSupervised


class Step(NamedTuple):
    """What a training step works on, on the device that trains.

    Attributes:
        images: float, from 0 to 255, of shape (batch, 3, size, size), channels last in memory.
        targets: From 0 (real) to 1 (synthetic), of shape (batch,).
        epochs: Epochs that are done, with the fraction of the present one.
        unlabelled: Further images, like `images`, to adapt to or to learn from.
        reference: The same as `unlabelled`, otherwise changed, if a teacher is to answer to them.
        generators: int64 of shape (batch,): the number of each image's generator, or
            `attribution.NOT_COUNTED`; None if the network does not attribute images.
        part: Which part of the epoch it is; None means a whole batch.
        seed: Seed of dropout and the like in a part of a batch.
    """

    images: Tensor
    targets: Tensor
    epochs: float = 0.0
    unlabelled: Tensor | None = None
    reference: Tensor | None = None
    generators: Tensor | None = None
    part: Part | None = None
    seed: int = 0


class Objective(nn.Module):
    """The loss of a step. It is a module because an adaptation may have weights that learn too.

    Attributes:
        adaptation: The adaptation, if it has a loss.
        semi_supervised: The semi-supervised method, if there is one.

    Args:
        options: What is minimised.
        device: Gives the precision of the forward pass.
        network: The network that will be trained; it is not kept.

    Raises:
        UserError: If steps are to be compiled, and there is no compiler.
    """

    def __init__(self, options: TrainingOptions, device: Device, network: Network) -> None:
        super().__init__()
        self.options, self.device = options, device
        self._outputs: Callable[[Network, Tensor], Tensor] = _outputs
        if options.device.compile:
            require_compiler(device)  # a run may be reproduced on another machine
            # Each shape by itself, so that a resumed training compiles what the first part did.
            self._outputs = torch.compile(_outputs, dynamic=False)
        self.adaptation: nn.Module | None = None
        if options.adaptation.adaptation in ADAPTATIONS:
            make = ADAPTATIONS[options.adaptation.adaptation].load()
            self.adaptation = make(network.features)  # None if it has no loss
        self.semi_supervised: SemiSupervised | None = None
        semi_supervised = options.semi_supervised
        if semi_supervised.semi_supervised in SEMI_SUPERVISED:
            self.semi_supervised = SEMI_SUPERVISED[semi_supervised.semi_supervised].load()(
                semi_supervised
            )

    def forward(
        self, network: Network, step: Step, teacher: Network | None = None
    ) -> tuple[Tensor, Tensor]:
        """Return the loss and the logits of the step's images, attacked if the options say so.

        Labelled and unlabelled images go through the network as one batch, so that normalisation
        layers see both, as evaluation will.

        Args:
            network: The network that learns.
            step: The images.
            teacher: The network that answers to `step.reference`; None means `network` itself.
        """
        options, images, targets = self.options, step.images, step.targets
        attack = options.adversarial
        progress = step.epochs / options.optim.epochs
        if attack.adversarial in ATTACKS and progress >= attack.adversarial_from:
            images = attacked(network, images, targets, attack)
        count = len(images)
        if self.adaptation is not None:
            assert step.unlabelled is not None
            with self.device.autocast():
                both = torch.cat([images, step.unlabelled])
                outputs, features = network.with_features(both)
            features = features.float()
            further = options.adaptation.adaptation_weight * self.adaptation(
                features[:count], features[count:], progress
            )
        elif self.semi_supervised is not None and step.reference is not None:
            assert step.unlabelled is not None
            answers = self._answers(teacher or network, step.reference)
            with self.device.autocast():
                outputs = self._outputs(network, torch.cat([images, step.unlabelled]))
            changed = outputs[count:, 0].float()
            further = self.semi_supervised(changed, answers, targets, progress)
        else:
            with self.device.autocast():
                outputs = self._outputs(network, images)
            further = None
        outputs = outputs[:count].float()
        loss = self._loss(outputs, step)
        return loss if further is None else loss + further, outputs[:, 0]

    def _answers(self, teacher: Network, images: Tensor) -> Tensor:
        """Return the logits of a teacher in evaluation mode; its mode stays as it was."""
        training = teacher.training
        teacher.eval()
        try:
            with torch.no_grad(), self.device.autocast():
                logits: Tensor = teacher(images)
            return logits.float()
        finally:
            teacher.train(training)

    def _loss(self, outputs: Tensor, step: Step) -> Tensor:
        """Return the loss over the labels and, if the network attributes images, over generators.

        Args:
            outputs: float32 of shape (batch, 1 + generators).
            step: The step.
        """
        options = self.options.loss
        loss = loss_of(outputs[:, 0], step.targets, options)
        if step.generators is None:
            return loss
        return loss + options.attribution * attribution_loss(outputs[:, 1:], step.generators)


def _outputs(network: Network, images: Tensor) -> Tensor:
    return network.outputs(images)

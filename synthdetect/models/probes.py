"""Probes: what is trained on the features of a frozen backbone.

A probe takes the place of the backbone's last layer. It maps float features of shape (batch,
features) to logits of shape (batch, 1). `fit` takes from the training features what is not learned
by steps; it is kept in buffers, and so in checkpoints and detectors.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from synthdetect.models.spec import ModelSpec
from synthdetect.system.errors import UserError

_DROPOUT = 0.5
_TEMPERATURE = 0.07  # of the votes, as in Wu et al. 2018
_SMALLEST_STD = 1e-6  # of a feature that varies at all


class Probe(nn.Module):
    """What is trained on features."""

    def fit(self, features: Tensor, labels: Tensor) -> None:
        """Take what the probe needs from the training images.

        Args:
            features: float32 of shape (images, features).
            labels: 0 (real) or 1 (synthetic), of shape (images,).

        Raises:
            UserError: If there are too few images.
        """
        raise NotImplementedError


class _StandardisedProbe(Probe):
    """A network on features of mean 0 and variance 1, which one learning rate suits."""

    mean: Tensor
    std: Tensor

    def __init__(self, features: int, layers: nn.Module) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(features))
        self.register_buffer("std", torch.ones(features))
        self.layers = layers

    def fit(self, features: Tensor, labels: Tensor) -> None:
        """Take mean and standard deviation of each feature."""
        self.mean.copy_(features.mean(0))
        std = features.std(0)
        self.std.copy_(torch.where(std > _SMALLEST_STD, std, 1.0))

    def forward(self, features: Tensor) -> Tensor:
        logits: Tensor = self.layers((features - self.mean) / self.std)
        return logits


class LinearProbe(_StandardisedProbe):
    """Logistic regression."""

    def __init__(self, features: int, spec: ModelSpec) -> None:
        super().__init__(features, nn.Linear(features, 1))


class MlpProbe(_StandardisedProbe):
    """A perceptron with one hidden layer."""

    def __init__(self, features: int, spec: ModelSpec) -> None:
        layers = (
            nn.Linear(features, spec.hidden), nn.ReLU(), nn.Dropout(_DROPOUT),
            nn.Linear(spec.hidden, 1),
        )  # fmt: skip
        super().__init__(features, nn.Sequential(*layers))


class NeighbourProbe(Probe):
    """The nearest training images by cosine similarity vote, by weights exp(similarity / 0.07).

    The weights of the k neighbours are scaled to the sum k. The logit is the log-odds of the votes,
    log((synthetic + 1/2) / (real + 1/2)), which are finite if all agree. In training mode, the
    nearest image is left out, because it is the image itself.
    """

    memory: Tensor
    labels: Tensor

    def __init__(self, features: int, spec: ModelSpec) -> None:
        super().__init__()
        self._neighbours = spec.neighbours
        images = spec.neighbours + 1  # before `fit`, as few as the network can be run with
        self.register_buffer("memory", torch.zeros(images, features))
        self.register_buffer("labels", torch.zeros(images))

    def fit(self, features: Tensor, labels: Tensor) -> None:
        """Remember the normalised features and the labels."""
        if len(features) <= self._neighbours:
            raise UserError(
                f"--neighbours {self._neighbours}: there are only {len(features)} training images. "
                "Give a smaller number."
            )
        self.memory = F.normalize(features, dim=1)
        self.labels = labels.to(features)

    def forward(self, features: Tensor) -> Tensor:
        similarities = F.normalize(features, dim=1) @ self.memory.T
        itself = int(self.training)
        nearest, rows = similarities.topk(self._neighbours + itself, dim=1)
        weights = (nearest[:, itself:] / _TEMPERATURE).softmax(dim=1) * self._neighbours
        synthetic = (weights * self.labels[rows[:, itself:]]).sum(1, keepdim=True)
        return torch.log((synthetic + 0.5) / (self._neighbours - synthetic + 0.5))

    def _load_from_state_dict(self, state: dict[str, Tensor], prefix: str, *rest: Any) -> None:
        """Make room for as many images as the state has; at least as many as vote."""
        memory = state.get(f"{prefix}memory")
        if memory is not None and len(memory) > self._neighbours:
            self.memory = self.memory.new_zeros(len(memory), self.memory.shape[1])
            self.labels = self.labels.new_zeros(len(memory))
        super()._load_from_state_dict(state, prefix, *rest)

"""A tiny network and options that the tests of training share."""

from typing import Any

from torch import Tensor, nn

from synthdetect.images.options import AugmentationOptions
from synthdetect.models.networks import Network
from synthdetect.models.spec import ModelSpec
from synthdetect.models.weights import Start
from synthdetect.runs.options import TrainOptions
from synthdetect.training.devices import Device

CPU = Device("cpu", "fp32", 0)
START = Start("random", "asked for")
SPEC = ModelSpec.of("resnet18", 32)
"""The specification that a tiny network claims to be built from."""

UNCHANGED: dict[str, Any] = {
    "hflip": 0, "jitter": 0, "blur": 0, "rotation": 0, "random_erasing": 0,
}  # fmt: skip
"""Options of an augmentation that changes no image."""


class Tiny(Network):
    """A convolution, the energy of its output, and a linear layer.

    Args:
        dropout: Probability of dropout, which draws random numbers in training.
        width: Channels of the convolution.
        norm: Whether there is batch normalisation.
        spec: The specification that it claims to be built from.
    """

    def __init__(
        self, dropout: float = 0.0, *, width: int = 8, norm: bool = True, spec: ModelSpec = SPEC
    ) -> None:
        nn.Module.__init__(self)
        self.spec, self.features = spec, width
        self.convolution = nn.Conv2d(3, width, 3, bias=not norm)
        self.norm = nn.BatchNorm2d(width) if norm else nn.Identity()
        self.dropout = nn.Dropout(dropout)
        self.last = nn.Linear(width, 1 + len(spec.generators))

    def outputs(self, images: Tensor) -> Tensor:
        maps = self.norm(self.convolution(images.float() / 255 - 0.5)).relu()
        outputs: Tensor = self.last(self.dropout(maps.square().mean(dim=(2, 3))))
        return outputs

    @property
    def head(self) -> nn.Linear:
        return self.last


def options_of(**given: Any) -> TrainOptions:
    """Options of a training on unchanged images that does not stop early, unless it says so."""
    return TrainOptions.resolve({**UNCHANGED, "lr": 0.03, "patience": 1000, **given})


assert set(UNCHANGED) <= set(AugmentationOptions.fields())

"""Front-ends: what the backbone sees of an image, computed inside the network.

A front-end is a module without weights of its own. It takes RGB images of shape (batch, 3, height,
width), uint8 or float from 0 to 255, and returns float32 of the same shape. It is part of the
network, so exported and served detectors have it.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from synthdetect.models.spec import ModelSpec


class Rgb(nn.Module):
    """The image, normalised by the mean and standard deviation of its channels."""

    scale: Tensor
    shift: Tensor

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__()
        mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (spec.mean, spec.std))
        self.register_buffer("scale", 1 / (255 * std), persistent=False)
        self.register_buffer("shift", -mean / std, persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        return torch.addcmul(self.shift, images.float(), self.scale)


class Npr(nn.Module):
    """Each pixel minus the first of its 2 by 2 neighbourhood (Tan et al., CVPR 2024, equation 3).

    The residual keeps the traces of upsampling and removes most of the content. It is divided by
    the standard deviation of the channels; there is no mean to subtract.
    """

    scale: Tensor

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__()
        std = torch.tensor(spec.std).view(1, 3, 1, 1)
        self.register_buffer("scale", 1 / (255 * std), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        pixels = images.float()
        first = pixels[..., ::2, ::2]
        repeated = F.interpolate(first, scale_factor=2.0, mode="nearest")
        return (pixels - repeated[..., : pixels.shape[2], : pixels.shape[3]]) * self.scale

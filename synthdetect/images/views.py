"""Views: the versions of an image whose mean logit is its score.

`synthdetect.images.options.VIEWS` names them. The card of a detector has the name of those under
which its calibration and its threshold were chosen.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn

from synthdetect.images.options import VIEWS, crop_side

_TEXTURED = 3  # crops that `texture` chooses of those of `grid`


class View(NamedTuple):
    """One version of each image of a batch.

    Attributes:
        images: The versions, of shape (images, channels, height, width).
        undo: From maps over the versions, of shape (images, ..., height, width), to maps over the
            images, which are 0 where the version does not show the image.
    """

    images: Tensor
    undo: Callable[[Tensor], Tensor]


def single(images: Tensor) -> list[View]:
    """Return the images themselves."""
    return [View(images, _unchanged)]


def flip(images: Tensor) -> list[View]:
    """Return the images and their mirror images."""
    return [View(images, _unchanged), View(_mirrored(images), _mirrored)]


def five(images: Tensor) -> list[View]:
    """Return crops of half the side: the corners and the centre."""
    places = [(0.0, 0.0), (0.0, 1.0), (1.0, 0.0), (1.0, 1.0), (0.5, 0.5)]
    return _crops(images, places)


def grid(images: Tensor) -> list[View]:
    """Return nine crops of half the side: three by three, which overlap by half."""
    steps = (0.0, 0.5, 1.0)
    return _crops(images, [(down, across) for down in steps for across in steps])


def texture(images: Tensor) -> list[View]:
    """Return the three crops of `grid` with the most texture, of each image its own.

    Texture is the mean absolute difference of neighbouring pixels.
    """
    crops = grid(images)
    textures = torch.stack([_texture(crop.images) for crop in crops])
    chosen = textures.topk(_TEXTURED, dim=0).indices
    stacked = torch.stack([crop.images for crop in crops])
    row = torch.arange(len(images), device=images.device)
    return [
        View(stacked[choice, row], partial(_lay_back_chosen, crops=crops, choice=choice))
        for choice in chosen
    ]


def _unchanged(images: Tensor) -> Tensor:
    return images


def _mirrored(images: Tensor) -> Tensor:
    return images.flip(-1)


def _crops(images: Tensor, places: list[tuple[float, float]]) -> list[View]:
    """Return crops at places, of which (0, 0) is upper left and (1, 1) is lower right."""
    height, width = images.shape[-2:]
    across, down = crop_side(width), crop_side(height)
    crops = []
    for vertical, horizontal in places:
        top, left = round(vertical * (height - down)), round(horizontal * (width - across))
        margins = (left, width - across - left, top, height - down - top)
        part = images[..., top : top + down, left : left + across]
        crops.append(View(part, partial(nn.functional.pad, pad=margins)))
    return crops


def _texture(images: Tensor) -> Tensor:
    """Return the mean absolute difference of neighbouring pixels, of shape (images,)."""
    values = images.float()
    return values.diff(dim=-1).abs().mean((1, 2, 3)) + values.diff(dim=-2).abs().mean((1, 2, 3))


def _lay_back_chosen(maps: Tensor, crops: list[View], choice: Tensor) -> Tensor:
    laid_back = torch.stack([crop.undo(maps) for crop in crops])
    return laid_back[choice.to(maps.device), torch.arange(len(maps), device=maps.device)]


class MeanOverViews(nn.Module):
    """A network whose logit of an image is the mean over views of the image.

    Args:
        network: From images of shape (images, channels, height, width) to logits of shape
            (images,).
        views: A name of `VIEWS`, which says whether the mean is trimmed.
    """

    def __init__(self, network: nn.Module, views: str) -> None:
        super().__init__()
        self.network = network
        self._make: Callable[[Tensor], list[View]] = VIEWS[views].load()
        self._is_trimmed = VIEWS[views].trimmed

    def forward(self, images: Tensor) -> Tensor:
        """Return the mean logits, of shape (images,)."""
        logits = torch.stack([self.network(view.images) for view in self._make(images)])
        if self._is_trimmed:
            logits = logits.sort(dim=0).values[1:-1]
        return logits.mean(0)

"""Random changes of training images, a batch at a time on whatever device trains.

Decoding is done per image by readers; these changes are done per batch with tensors, which uses
every core (or the GPU) and costs a fraction of a per-image pipeline. What happens to an image
depends on (seed, epoch, row) alone, never on its batch.
"""

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from synthdetect.images.options import AugmentationOptions
from synthdetect.models.architectures import IMAGENET_MEAN

_GREY = (0.299, 0.587, 0.114)
"""Luma weights of ITU-R BT.601, as torchvision's and Pillow's colour changes use them."""


def draws(seed: int, epoch: int, rows: Sequence[int]) -> npt.NDArray[np.float32]:
    """Uniform random numbers for each image of a batch.

    Returns:
        Shape (batch, 12), in [0, 1): the same for the same (seed, epoch, row).
    """
    words = [np.random.SeedSequence([seed, epoch, row]).generate_state(12) for row in rows]
    return (np.stack(words) >> 8).astype(np.float32) / np.float32(2**24)


def augment(
    images: Tensor, options: AugmentationOptions, random: npt.NDArray[np.float32]
) -> Tensor:
    """Flip, rotate, jitter, blur and erase a part of each image by its own random numbers.

    Args:
        images: uint8, shape (batch, 3, height, width).
        options: strengths and probabilities.
        random: as `draws` returns them.

    Returns:
        float32 of the same shape, 0 to 255.
    """
    u = torch.from_numpy(random).to(images.device)
    flip, angle, brightness, contrast, saturation, blur, sigma = u.T[:7]
    # Planes, not channels last: colours are then mixed in long runs (measured: 2.4 against 6.6 ms
    # for 32 images of 224x224).
    changed = images.to(torch.float32, memory_format=torch.contiguous_format)
    flipped = (flip < options.hflip).nonzero().squeeze(1)
    changed[flipped] = changed[flipped].flip(3)
    if options.rotation:
        changed = rotate(changed, _symmetric(angle, options.rotation))
    if options.jitter:
        jitter_(
            changed,
            1 + _symmetric(brightness, options.jitter),
            1 + _symmetric(contrast, options.jitter),
            1 + _symmetric(saturation, options.jitter),
        )
    blurred = (blur < options.blur).nonzero().squeeze(1)
    if len(blurred):
        sigmas = 0.1 + (options.blur_sigma - 0.1) * sigma[blurred]
        changed[blurred] = gaussian_blur(changed[blurred], sigmas)
    if options.random_erasing:
        for row in np.flatnonzero(random[:, 7] < options.random_erasing):
            erase_(changed[row], random[row, 8:12].tolist())
    return changed.clamp_(0, 255)


def jitter_(images: Tensor, brightness: Tensor, contrast: Tensor, saturation: Tensor) -> None:
    """Change brightness, contrast and saturation by factors, in place.

    Brightness scales a pixel, contrast blends it with the image's mean grey, saturation with its
    own grey. Without clamping between them the three commute, so their order is no choice; values
    may leave 0 to 255.

    Args:
        images: float, shape (batch, 3, height, width).
        brightness: factors, shape (batch,); likewise `contrast` and `saturation`.
    """
    b, c, s = (factor.view(-1, 1, 1, 1) for factor in (brightness, contrast, saturation))
    grey = images[:, 0:1] * _GREY[0]
    grey.add_(images[:, 1:2], alpha=_GREY[1]).add_(images[:, 2:3], alpha=_GREY[2])
    offset = b * (1 - c) * grey.mean(dim=(1, 2, 3), keepdim=True)
    images.mul_(b * c * s).add_(grey.mul_(b * c * (1 - s)).add_(offset))


def gaussian_blur(images: Tensor, sigmas: Tensor) -> Tensor:
    """Blur each image with a Gaussian of its own width, reflecting at the borders.

    Args:
        images: float, shape (batch, 3, height, width).
        sigmas: standard deviations in pixels, shape (batch,); kernels reach two of the largest.
    """
    height, width = images.shape[2:]
    radius = min(int(torch.ceil(2 * sigmas.max())), height - 1, width - 1)
    offsets = torch.arange(-radius, radius + 1, device=images.device, dtype=torch.float32)
    kernels = torch.exp(-0.5 * (offsets / sigmas[:, None]) ** 2)
    # Each kernel has its own reach, so that an image does not depend on its batch.
    kernels = kernels * (offsets.abs() <= torch.ceil(2 * sigmas[:, None]))
    kernels = (kernels / kernels.sum(dim=1, keepdim=True))[..., None, None, None]
    padded = F.pad(images, (radius, radius, radius, radius), mode="reflect")
    # One shifted sum a tap: a grouped convolution takes thirty times as long on a CPU.
    rows = torch.zeros_like(padded[..., :width])
    for tap in range(2 * radius + 1):
        rows.addcmul_(padded[..., tap : tap + width], kernels[:, tap])
    result = torch.zeros_like(images)
    for tap in range(2 * radius + 1):
        result.addcmul_(rows[:, :, tap : tap + height], kernels[:, tap])
    return result


def rotate(images: Tensor, degrees: Tensor) -> Tensor:
    """Turn each image about its centre, bilinearly; what turns in from outside is black.

    Args:
        images: float, shape (batch, 3, height, width).
        degrees: counter-clockwise, shape (batch,).
    """
    height, width = images.shape[2:]
    angle = torch.deg2rad(degrees)
    cos, sin = torch.cos(angle), torch.sin(angle)
    zero = torch.zeros_like(angle)
    # affine_grid's axes run from -1 to 1 over unequal lengths; the ratio keeps angles true.
    ratio = height / width
    theta = torch.stack([cos, -sin * ratio, zero, sin / ratio, cos, zero], dim=1).view(-1, 2, 3)
    grid = F.affine_grid(theta, list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, mode="bilinear", align_corners=False)


def erase_(image: Tensor, random: Sequence[float]) -> None:
    """Paint a rectangle over in ImageNet's mean colour, in place (Zhong et al. 2020).

    It takes 2 to 33 % of the image, and is 0.3 to 3.3 times as high as wide (in the logarithm
    uniformly); of one that is longer than the image, the rest is left out.

    Args:
        image: float, 0 to 255, shape (3, height, width).
        random: four numbers in [0, 1): for area, proportion, top and left.
    """
    height, width = image.shape[1:]
    share = _between(random[0], 0.02, 0.33)
    root = math.exp(_between(random[1], math.log(0.3), math.log(3.3)) / 2)
    side = math.sqrt(share * height * width)
    high, wide = min(round(side * root), height), min(round(side / root), width)
    top, left = int(random[2] * (height - high + 1)), int(random[3] * (width - wide + 1))
    colour = 255 * torch.tensor(IMAGENET_MEAN, device=image.device)
    image[:, top : top + high, left : left + wide] = colour[:, None, None]


def _between(uniform: float, low: float, high: float) -> float:
    return low + (high - low) * uniform


def _symmetric(uniform: Tensor, strength: float) -> Tensor:
    return (2 * uniform - 1) * strength

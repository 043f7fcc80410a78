"""Random augmentation of training images, a batch at a time, on the device that trains.

Images are decoded one by one by the data loader's workers, but augmented as batches of tensors,
which uses all cores or the GPU and takes a fraction of the time of augmenting them one by one. The
augmentation of an image depends only on (seed, epoch, row), never on its batch. What is random is
known on the CPU, so that nothing waits for an accelerator.
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
"""Luma weights of ITU-R BT.601, as in torchvision and Pillow."""


def draws(seed: int, epoch: int, rows: Sequence[int]) -> npt.NDArray[np.float32]:
    """Draw uniform random numbers for each image of a batch.

    Args:
        seed: Random seed.
        epoch: Number of the epoch.
        rows: Rows of the images in the manifest.

    Returns:
        float32 in [0, 1), shape (batch, 12). Each row depends only on (seed, epoch, row).
    """
    words = [np.random.SeedSequence([seed, epoch, row]).generate_state(12) for row in rows]
    return (np.stack(words) >> 8).astype(np.float32) / np.float32(2**24)


def augment(
    images: Tensor, options: AugmentationOptions, random: npt.NDArray[np.float32]
) -> Tensor:
    """Randomly flip, rotate, jitter and blur each image, and erase a part of it.

    Args:
        images: uint8, shape (batch, 3, height, width).
        options: Strengths and probabilities.
        random: Random numbers from `draws`, shape (batch, 12).

    Returns:
        float32 in [0, 255], shape (batch, 3, height, width).
    """
    u = torch.from_numpy(random)
    flip, _, _, _, _, blur, sigma = u.T[:7]
    angle, brightness, contrast, saturation = _moved(u[:, 1:5], images).T
    # Contiguous planes instead of channels last: mixing the colours of 32 images of 224x224 then
    # takes 2.4 instead of 6.6 ms.
    changed = images.to(torch.float32, memory_format=torch.contiguous_format)
    flipped = _moved((flip < options.hflip).nonzero().squeeze(1), images)
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
        blurred = _moved(blurred, images)
        changed[blurred] = gaussian_blur(changed[blurred], sigmas)
    if options.random_erasing:
        for row in np.flatnonzero(random[:, 7] < options.random_erasing):
            erase_(changed[row], random[row, 8:12].tolist())
    return changed.clamp_(0, 255)


def jitter_(images: Tensor, brightness: Tensor, contrast: Tensor, saturation: Tensor) -> None:
    """Change brightness, contrast and saturation in place.

    Brightness scales each pixel, contrast blends it with the mean grey of the image, and saturation
    blends it with its own grey. Values are not clamped and may leave [0, 255]; the order of the
    three then makes no difference.

    Args:
        images: float, shape (batch, 3, height, width).
        brightness: Factors, shape (batch,).
        contrast: Factors, shape (batch,).
        saturation: Factors, shape (batch,).
    """
    b, c, s = (factor.view(-1, 1, 1, 1) for factor in (brightness, contrast, saturation))
    grey = images[:, 0:1] * _GREY[0]
    grey.add_(images[:, 1:2], alpha=_GREY[1]).add_(images[:, 2:3], alpha=_GREY[2])
    offset = b * (1 - c) * grey.mean(dim=(1, 2, 3), keepdim=True)
    images.mul_(b * c * s).add_(grey.mul_(b * c * (1 - s)).add_(offset))


def gaussian_blur(images: Tensor, sigmas: Tensor) -> Tensor:
    """Blur each image with a Gaussian of its own width, with reflection at the borders.

    Args:
        images: float, shape (batch, 3, height, width).
        sigmas: Standard deviations in pixels, on the CPU, of shape (batch,). Each kernel is cut at
            two standard deviations.
    """
    height, width = images.shape[2:]
    radius = min(int(torch.ceil(2 * sigmas.max())), height - 1, width - 1)
    offsets = torch.arange(-radius, radius + 1, dtype=torch.float32)
    kernels = torch.exp(-0.5 * (offsets / sigmas[:, None]) ** 2)
    # Each kernel has its own radius, so that the result does not depend on the rest of the batch.
    kernels = kernels * (offsets.abs() <= torch.ceil(2 * sigmas[:, None]))
    kernels = _moved(kernels / kernels.sum(dim=1, keepdim=True), images)[..., None, None, None]
    padded = F.pad(images, (radius, radius, radius, radius), mode="reflect")
    # Sums of shifted images: a grouped convolution takes thirty times as long on a CPU.
    rows = torch.zeros_like(padded[..., :width])
    for tap in range(2 * radius + 1):
        rows.addcmul_(padded[..., tap : tap + width], kernels[:, tap])
    result = torch.zeros_like(images)
    for tap in range(2 * radius + 1):
        result.addcmul_(rows[:, :, tap : tap + height], kernels[:, tap])
    return result


def rotate(images: Tensor, degrees: Tensor) -> Tensor:
    """Rotate each image about its centre with bilinear interpolation and black corners.

    Args:
        images: float, shape (batch, 3, height, width).
        degrees: Angles, counter-clockwise, shape (batch,).
    """
    height, width = images.shape[2:]
    angle = torch.deg2rad(degrees)
    cos, sin = torch.cos(angle), torch.sin(angle)
    zero = torch.zeros_like(angle)
    # Both axes of affine_grid run from -1 to 1, whatever their lengths; the ratio preserves angles.
    ratio = height / width
    theta = torch.stack([cos, -sin * ratio, zero, sin / ratio, cos, zero], dim=1).view(-1, 2, 3)
    grid = F.affine_grid(theta, list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, mode="bilinear", align_corners=False)


def erase_(image: Tensor, random: Sequence[float]) -> None:
    """Fill a random rectangle with the mean colour of ImageNet, in place.

    Random erasing (Zhong et al., "Random Erasing Data Augmentation", AAAI 2020). The rectangle
    covers 2 to 33 % of the image, and its height is 0.3 to 3.3 times its width, log-uniformly. A
    side longer than that of the image is cut.

    Args:
        image: float in [0, 255], shape (3, height, width).
        random: Four numbers in [0, 1), for area, aspect ratio, top and left.
    """
    height, width = image.shape[1:]
    share = _between(random[0], 0.02, 0.33)
    root = math.exp(_between(random[1], math.log(0.3), math.log(3.3)) / 2)
    side = math.sqrt(share * height * width)
    high, wide = min(round(side * root), height), min(round(side / root), width)
    top, left = int(random[2] * (height - high + 1)), int(random[3] * (width - wide + 1))
    for plane, colour in zip(image, (255 * torch.tensor(IMAGENET_MEAN)).tolist(), strict=True):
        plane[top : top + high, left : left + wide] = colour


def _moved(values: Tensor, images: Tensor) -> Tensor:
    """Return values on the device of the images, without waiting for it."""
    return values.to(images.device, non_blocking=True)


def _between(uniform: float, low: float, high: float) -> float:
    return low + (high - low) * uniform


def _symmetric(uniform: Tensor, strength: float) -> Tensor:
    return (2 * uniform - 1) * strength

"""Front-ends: what the backbone sees of an image, computed inside the network.

A front-end is a module without weights of its own. It takes RGB images of shape (batch, 3, height,
width), uint8 or float from 0 to 255, and returns float32 of shape (batch, channels, height /
stride, width / stride). It is part of the network, so exported and served detectors have it.

The values that `HighPass`, `Wavelet`, `Dct` and `Fft` return are scaled to about unit variance, and
`Dct` and `Fft` to mean 0, over centre crops of 128 pixels of the sample's real training
photographs; `python -m benchmarks.front_ends` measures these constants.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from synthdetect.models.spec import ModelSpec


class FrontEnd(nn.Module):
    """What the backbone sees.

    Attributes:
        channels: Number of channels that are returned.
        stride: Pixels of the image per position of what is returned.
    """

    channels: int = 3
    stride: int = 1

    def pictures(self, seen: Tensor) -> Tensor:
        """Arrange what is returned for people to look at.

        Args:
            seen: What the front-end returns, of shape (batch, channels, height, width).

        Returns:
            The same values as RGB pictures, of shape (batch, pictures, 3, height, width). There are
            none of a front-end that shows nothing but the image.
        """
        return seen.unsqueeze(1)


class Rgb(FrontEnd):
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

    def pictures(self, seen: Tensor) -> Tensor:
        return seen.unsqueeze(1)[:, :0]


class Npr(FrontEnd):
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


class RgbNpr(FrontEnd):
    """The channels of `Rgb`, then those of `Npr`.

    The branches are joined before the backbone. Its first convolution then relates the image to its
    residual at every pixel, at little cost, whereas a backbone for each branch would double it.
    """

    channels = 6

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__()
        self.rgb, self.npr = Rgb(spec), Npr(spec)

    def forward(self, images: Tensor) -> Tensor:
        return torch.cat([self.rgb(images), self.npr(images)], dim=1)

    def pictures(self, seen: Tensor) -> Tensor:
        return self.npr.pictures(seen[:, self.rgb.channels :])


class _Filters(FrontEnd):
    """The same filters of each colour channel: all of red, then of green, then of blue.

    Args:
        filters: Of shape (filters, height, width).
        margin: Pixels by which the image is extended to the left, right, top and bottom, by
            repeating those at its border.
    """

    weight: Tensor

    def __init__(self, filters: Tensor, margin: Sequence[int]) -> None:
        super().__init__()
        assert self.channels == 3 * len(filters)
        self._margin = list(margin)
        self.register_buffer("weight", filters.unsqueeze(1).repeat(3, 1, 1, 1), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        extended = F.pad(images.float(), self._margin, mode="replicate")
        return F.conv2d(extended, self.weight, stride=self.stride, groups=3)

    def pictures(self, seen: Tensor) -> Tensor:
        """Return one picture for each filter."""
        batch, channels, height, width = seen.shape
        return seen.view(batch, 3, channels // 3, height, width).transpose(1, 2)


class HighPass(_Filters):
    """Three residuals of each colour channel from the rich models of steganalysis.

    The filters are a second difference and the squares of 3 by 3 and 5 by 5 (Fridrich and Kodovsky
    2012), as in Zhou et al. (CVPR 2018), who add the channels up.
    """

    channels = 9

    STD = (13.11, 9.70, 10.12)
    """Standard deviation of each residual, in levels of 255."""

    def __init__(self, spec: ModelSpec) -> None:
        second = torch.zeros(5, 5)
        second[2, 1:4] = torch.tensor([1.0, -2, 1]) / 2
        small = torch.zeros(5, 5)
        small[1:4, 1:4] = torch.tensor([[-1.0, 2, -1], [2, -4, 2], [-1, 2, -1]]) / 4
        large = torch.tensor(
            [[-1.0, 2, -2, 2, -1], [2, -6, 8, -6, 2], [-2, 8, -12, 8, -2], [2, -6, 8, -6, 2],
             [-1, 2, -2, 2, -1]]
        ) / 12  # fmt: skip
        std = torch.tensor(self.STD).view(3, 1, 1)
        super().__init__(torch.stack([second, small, large]) / std, margin=(2, 2, 2, 2))


class Wavelet(_Filters):
    """The detail bands of the undecimated Haar transform of each colour channel, at one level.

    They are, of each 2 by 2 pixels, the difference from left to right, from top to bottom, and
    along the diagonals. Without decimation a shifted image gives shifted bands (Mallat 2009,
    section 5.2).
    """

    channels = 9

    STD = (8.21, 8.61, 4.22)
    """Standard deviation of each band, in levels of 255."""

    def __init__(self, spec: ModelSpec) -> None:
        low, high = torch.tensor([1.0, 1]) / 2, torch.tensor([1.0, -1]) / 2
        bands = [torch.outer(low, high), torch.outer(high, low), torch.outer(high, high)]
        std = torch.tensor(self.STD).view(3, 1, 1)
        super().__init__(torch.stack(bands) / std, margin=(0, 1, 0, 1))


class Dct(_Filters):
    """Magnitudes of the orthonormal DCT of blocks of 8 by 8 pixels, of each colour channel.

    The blocks overlap by half, so every second one is a block of a JPEG that was not cropped. A
    coefficient c, in levels of 255, becomes log(1 + c^2) / 2, which is finite and smooth at 0. The
    64 channels of a colour are in the order of the rows of a block: the first is the mean, and
    channel 8 v + u has u half periods across and v half periods down.
    """

    channels, stride = 192, 4

    MEAN, STD = 1.214, 1.453
    """Mean and standard deviation of all these logarithms."""

    def __init__(self, spec: ModelSpec) -> None:
        place, frequency = torch.arange(8.0), torch.arange(8.0).unsqueeze(1)
        waves = torch.cos(torch.pi / 8 * (place + 0.5) * frequency) / 2
        waves[0] /= 2**0.5
        blocks = torch.einsum("vy,ux->vuyx", waves, waves).reshape(64, 8, 8)
        super().__init__(blocks, margin=(0, 4, 0, 4))

    def forward(self, images: Tensor) -> Tensor:
        coefficients = super().forward(images)
        return (torch.log1p(coefficients.square()) / 2 - self.MEAN) / self.STD

    def pictures(self, seen: Tensor) -> Tensor:
        """Return the mean of the 64 magnitudes of each block."""
        return super().pictures(seen).mean(1, keepdim=True)


class Fft(FrontEnd):
    """Magnitudes of the spectrum of the whole image, of each colour channel.

    A coefficient c of the orthonormal Fourier transform, in levels of 255, becomes
    `log(1 + abs(c)^2) / 2`; frequency 0 is at pixel (size // 2, size // 2). The transform is two
    products with matrices, which every engine computes, while some do not know complex numbers.
    """

    MEAN, STD = 1.800, 1.207
    """Mean and standard deviation of all these logarithms."""

    cos: Tensor
    sin: Tensor

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__()
        size = spec.image_size
        place = torch.arange(size)
        # The remainder keeps the angles exact before they are divided.
        angles = 2 * torch.pi / size * (torch.outer(place - size // 2, place) % size).double()
        self.register_buffer("cos", (angles.cos() / size**0.5).float(), persistent=False)
        self.register_buffer("sin", (angles.sin() / size**0.5).float(), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        pixels = images.float()
        cos, sin = self.cos @ pixels, self.sin @ pixels
        real = cos @ self.cos.T - sin @ self.sin.T
        imaginary = cos @ self.sin.T + sin @ self.cos.T
        power = real.square() + imaginary.square()
        return (torch.log1p(power) / 2 - self.MEAN) / self.STD

"""Front-ends: what the backbone sees of an image, by hand and within a network."""

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torchvision.transforms.v2.functional import normalize

from synthdetect.datasets.manifest import load
from synthdetect.images.geometry import Preprocess
from synthdetect.models.front_ends import Dct, Fft, FrontEnd, HighPass, Npr, Rgb, RgbNpr, Wavelet
from synthdetect.models.networks import build
from synthdetect.models.spec import FRONT_ENDS, ModelSpec

ARCH, SIZE = "mobilenet_v3_large", 32
MEAN, STD = (0.5, 0.25, 0.1), (0.2, 0.4, 0.5)
SPEC = ModelSpec(arch=ARCH, image_size=SIZE, mean=MEAN, std=STD)


def noise(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)


def planes(rows: Sequence[Sequence[float]]) -> Tensor:
    """One image with the same values in each channel."""
    return torch.tensor(rows, dtype=torch.float32).expand(1, 3, -1, -1)


def front_end_of(name: str) -> FrontEnd:
    made: FrontEnd = FRONT_ENDS[name].load()(SPEC)
    return made


@pytest.mark.parametrize("name", FRONT_ENDS)
def test_any_front_end_returns_float32_of_the_shape_that_it_declares(name: str) -> None:
    front_end = front_end_of(name)
    images = noise(2, 3, SIZE, SIZE)
    seen = front_end(images)
    side = SIZE // front_end.stride
    assert seen.shape == (2, front_end.channels, side, side)
    assert seen.dtype == torch.float32
    assert torch.equal(seen, front_end(images.float()))
    assert not list(front_end.parameters())
    assert not front_end.state_dict()  # so that weights fit a network with any front-end


@pytest.mark.parametrize("name", ["rgb", "npr", "rgb+npr", "highpass", "wavelet"])
@pytest.mark.parametrize("size", [(17, 31), (1, 1)])
def test_front_ends_at_full_resolution_take_any_size(name: str, size: tuple[int, int]) -> None:
    front_end = front_end_of(name)
    assert front_end(noise(2, 3, *size)).shape == (2, front_end.channels, *size)


@pytest.mark.parametrize("name", FRONT_ENDS)
def test_any_front_end_is_the_same_for_both_memory_layouts_and_for_one_image(name: str) -> None:
    front_end = front_end_of(name)
    images = noise(3, 3, SIZE, SIZE)
    seen = front_end(images)
    last = images.contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(front_end(last), seen, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(front_end(images[1:2]), seen[1:2], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", ["highpass", "wavelet", "dct", "fft"])
def test_photographs_are_seen_with_about_unit_variance(name: str) -> None:
    sample = load("sample").split("val")
    real = sample.table.loc[sample.table["label"] == 0, "path"].head(40)
    preprocess = Preprocess(64, "center_crop")
    squares = np.stack([preprocess(Path(sample.file(path)).read_bytes()) for path in real])
    images = torch.from_numpy(squares).permute(0, 3, 1, 2)
    seen = FRONT_ENDS[name].load()(ModelSpec.of(ARCH, 64, name))(images)
    assert abs(seen.mean()) < 0.5
    assert 0.5 < seen.std() < 2


def test_rgb_by_hand() -> None:
    """(v / 255 - mean) / std, for 0, 51 and 255."""
    seen = Rgb(SPEC)(planes([[0, 51, 255]]))
    expected = [[-2.5, -1.5, 2.5], [-0.625, -0.125, 1.875], [-0.2, 0.2, 1.8]]
    torch.testing.assert_close(seen[0, :, 0], torch.tensor(expected))


def test_rgb_is_torchvisions_normalisation() -> None:
    images = noise(4, 3, 8, 8)
    expected = normalize(images.float() / 255, list(MEAN), list(STD))
    torch.testing.assert_close(Rgb(SPEC)(images), expected, atol=2e-6, rtol=0)


def test_npr_by_hand() -> None:
    """The differences to the first pixel of each square of 2 by 2, by 255 * std."""
    seen = Npr(SPEC)(planes([[10, 61, 7, 7], [112, 10, 7, 58]]))
    residual = torch.tensor([[0, 51, 0, 0], [102, 0, 0, 51]]) / 255
    for channel, std in enumerate(STD):
        torch.testing.assert_close(seen[0, channel], residual / std)


def test_npr_of_odd_sizes_compares_the_last_pixels_with_the_first_of_what_is_left() -> None:
    seen = Npr(SPEC)(planes([[1, 2, 3], [4, 5, 6], [7, 8, 9]]))
    residual = torch.tensor([[0, 1, 0], [3, 4, 3], [0, 1, 0]]) / 255
    torch.testing.assert_close(seen[0, 0], residual / STD[0])


@pytest.mark.parametrize("value", [0, 77, 255])
@pytest.mark.parametrize("size", [(8, 8), (7, 9)])
def test_npr_of_a_constant_image_is_zero(value: int, size: tuple[int, int]) -> None:
    images = torch.full((2, 3, *size), value, dtype=torch.uint8)
    assert Npr(SPEC)(images).abs().max() == 0


def test_npr_of_an_image_enlarged_by_its_nearest_pixels_is_zero() -> None:
    """Which is the trace of upsampling that it looks for."""
    images = noise(2, 3, 8, 8).float()
    enlarged = torch.nn.functional.interpolate(images, scale_factor=2.0, mode="nearest")
    assert Npr(SPEC)(enlarged).abs().max() == 0
    assert Npr(SPEC)(images).abs().max() > 0


def test_npr_does_not_see_brightness() -> None:
    images = noise(2, 3, 9, 9).float() / 2
    torch.testing.assert_close(Npr(SPEC)(images + 100), Npr(SPEC)(images), atol=1e-5, rtol=0)


def test_rgb_npr_has_the_channels_of_both() -> None:
    images = noise(2, 3, 8, 8)
    assert torch.equal(RgbNpr(SPEC)(images), torch.cat([Rgb(SPEC)(images), Npr(SPEC)(images)], 1))


@pytest.mark.parametrize("name", ["highpass", "wavelet"])
def test_filters_see_nothing_in_a_constant_image(name: str) -> None:
    images = torch.full((1, 3, 9, 12), 201, dtype=torch.uint8)
    assert front_end_of(name)(images).abs().max() < 1e-4


def test_highpass_by_hand() -> None:
    """A single bright pixel gives the middle of each filter, in its own colour only."""
    images = torch.zeros(1, 3, 11, 11)
    images[0, 1, 5, 5] = 12
    seen = HighPass(SPEC)(images)[0]
    expected = torch.tensor([-12, -12, -12]) / torch.tensor(HighPass.STD)
    torch.testing.assert_close(seen[3:6, 5, 5], expected)
    assert seen[:3].abs().max() == seen[6:].abs().max() == 0
    ramp = torch.arange(11.0).expand(1, 3, 11, 11)
    assert HighPass(SPEC)(ramp)[..., 2:-2, 2:-2].abs().max() < 1e-5


def test_wavelet_by_hand() -> None:
    """An upright edge is in the first band, a level one in the second, checks in the third."""
    upright = torch.zeros(1, 3, 6, 6)
    upright[..., 3:] = 10
    checks = (torch.arange(6) + torch.arange(6).unsqueeze(1)) % 2 * 10.0
    for band, images in enumerate((upright, upright.mT, checks.expand(1, 3, 6, 6))):
        seen = Wavelet(SPEC)(images)[0, :, :5, :5] * torch.tensor(Wavelet.STD * 3).view(9, 1, 1)
        for channel in range(9):
            assert (seen[channel].abs().max() > 1) == (channel % 3 == band)
        assert seen.abs().max() == pytest.approx(5)


@pytest.mark.parametrize(("u", "v"), [(0, 0), (3, 0), (0, 7), (5, 2)])
def test_the_dct_of_a_wave_is_at_its_coefficient(u: int, v: int) -> None:
    place = torch.arange(SIZE) % 8 + 0.5
    across, down = ((torch.pi / 8 * place * k).cos() for k in (u, v))
    images = torch.zeros(1, 3, SIZE, SIZE)
    images[0, 2] = 100 * torch.outer(down, across)
    block = (Dct(SPEC)(images)[0, :, 2, 4] * Dct.STD + Dct.MEAN).view(3, 64)
    size = 100 * (8 if not u and not v else 32**0.5 if not u or not v else 4)
    assert block[2, 8 * v + u].item() == pytest.approx(math.log(1 + size**2) / 2, rel=1e-4)
    assert block[2].sum() - block[2, 8 * v + u] < 1e-3
    assert block[:2].abs().max() < 1e-6


def test_the_spectrum_of_a_wave_peaks_at_its_frequency() -> None:
    wave = (2 * torch.pi / SIZE * 5 * torch.arange(SIZE)).cos() * 50
    seen = Fft(SPEC)(wave.expand(1, 3, SIZE, SIZE))[0, 0] * Fft.STD + Fft.MEAN
    middle = SIZE // 2
    assert seen[middle, middle + 5].item() == pytest.approx(math.log(50 * SIZE / 2), rel=1e-4)
    peaks = (seen > 1).nonzero().tolist()
    assert peaks == [[middle, middle - 5], [middle, middle + 5]]


@pytest.mark.parametrize("size", [16, 33])
def test_the_spectrum_is_that_of_the_fast_fourier_transform(size: int) -> None:
    images = noise(2, 3, size, size).float()
    power = torch.fft.fftshift(torch.fft.fft2(images, norm="ortho"), dim=(2, 3)).abs() ** 2
    seen = Fft(ModelSpec.of(ARCH, size, "fft"))(images) * Fft.STD + Fft.MEAN
    torch.testing.assert_close(seen, power.log1p() / 2, atol=1e-3, rtol=1e-4)


# --- within a network


@pytest.mark.parametrize("name", FRONT_ENDS)
def test_gradients_reach_every_weight_and_the_images(name: str) -> None:
    torch.manual_seed(0)
    network = build(ModelSpec.of(ARCH, SIZE, name)).train()
    nn.init.normal_(network.head.weight, std=0.05)
    images = noise(4, 3, SIZE, SIZE).float().requires_grad_()
    torch.autograd.backward(
        nn.functional.binary_cross_entropy_with_logits(
            network(images), torch.tensor([0.0, 1, 0, 1])
        )
    )
    gradients = [images.grad, *(parameter.grad for parameter in network.parameters())]
    assert all(g is not None and g.isfinite().all() and g.any() for g in gradients)


def test_the_front_end_of_the_specification_is_that_of_the_network() -> None:
    """Only with npr do brighter images have the same logits; batch statistics keep them large."""
    torch.manual_seed(0)
    rgb, npr = (build(ModelSpec.of("resnet18", SIZE, name)).train() for name in ("rgb", "npr"))
    npr.load_state_dict(rgb.state_dict())
    images = noise(4, 3, SIZE, SIZE).float() / 2
    brighter = images.clone()
    brighter[0] += 100
    with torch.no_grad():
        torch.testing.assert_close(npr(brighter), npr(images), atol=1e-2, rtol=1e-2)
        assert (rgb(brighter) - rgb(images)).abs().max() > 0.1
        assert (npr(images) - rgb(images)).abs().max() > 0.1


def test_front_ends_are_computed_in_fp32_under_autocast() -> None:
    network = build(ModelSpec.of(ARCH, SIZE, "fft"))
    images = noise(2, 3, SIZE, SIZE)
    seen: list[Tensor] = []
    network.backbone.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    with torch.no_grad():
        network(images)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            network(images)
    assert torch.equal(*seen)

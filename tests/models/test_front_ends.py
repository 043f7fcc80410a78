"""Front-ends: what the backbone sees of an image, by hand and within a network."""

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor, nn
from torchvision.transforms.v2.functional import normalize

from synthdetect.models.front_ends import Npr, Rgb
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


@pytest.mark.parametrize("name", FRONT_ENDS)
@pytest.mark.parametrize("size", [(32, 32), (17, 31), (1, 1)])
def test_any_front_end_returns_float32_of_the_same_shape(name: str, size: tuple[int, int]) -> None:
    front_end: nn.Module = FRONT_ENDS[name].load()(SPEC)
    images = noise(2, 3, *size)
    seen = front_end(images)
    assert seen.shape == images.shape
    assert seen.dtype == torch.float32
    assert torch.equal(seen, front_end(images.float()))
    assert not list(front_end.parameters())
    assert not front_end.state_dict()  # so that weights fit a network with any front-end


@pytest.mark.parametrize("name", FRONT_ENDS)
def test_any_front_end_is_the_same_for_both_memory_layouts_and_for_one_image(name: str) -> None:
    front_end: nn.Module = FRONT_ENDS[name].load()(SPEC)
    images = noise(3, 3, 16, 16)
    seen = front_end(images)
    assert torch.equal(front_end(images.contiguous(memory_format=torch.channels_last)), seen)
    assert torch.equal(front_end(images[1:2]), seen[1:2])


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

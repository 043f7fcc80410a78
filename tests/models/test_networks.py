"""Building a network from its specification, and the normalisation inside it."""

import dataclasses

import pytest
import torch
from torch import Tensor, nn

from synthdetect.models.architectures import ARCHITECTURES, IMAGENET_MEAN, IMAGENET_STD
from synthdetect.models.networks import (
    AllOutputs,
    Network,
    build,
    first_convolution,
    require_buildable,
)
from synthdetect.models.spec import FRONT_ENDS, ModelSpec
from synthdetect.system.errors import UserError

ARCH, SIZE = "mobilenet_v3_large", 32
SPEC = ModelSpec.of(ARCH, SIZE)


def noise(batch: int = 3) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (batch, 3, SIZE, SIZE), dtype=torch.uint8, generator=generator)


def seen_by(network: Network, images: Tensor) -> Tensor:
    """What the backbone of a network is given."""
    given: list[Tensor] = []
    hook = network.backbone.register_forward_pre_hook(lambda _, inputs: given.append(inputs[0]))
    with torch.inference_mode():
        network.eval()(images)
    hook.remove()
    return given[0]


def test_the_backbone_sees_normalised_images_and_gives_one_logit_each() -> None:
    network = build(SPEC)
    images = noise()
    assert network.eval()(images).shape == (3,)
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (IMAGENET_MEAN, IMAGENET_STD))
    expected = (images.float() / 255 - mean) / std
    torch.testing.assert_close(seen_by(network, images), expected, atol=2e-6, rtol=0)


@pytest.mark.parametrize("front_end", FRONT_ENDS)
def test_whole_numbers_and_floats_of_the_same_scale_agree(front_end: str) -> None:
    network = build(ModelSpec.of(ARCH, SIZE, front_end))
    assert torch.equal(seen_by(network, noise()), seen_by(network, noise().float()))
    with torch.inference_mode():
        assert torch.equal(network(noise()), network(noise().float()))


@pytest.mark.parametrize("front_end", FRONT_ENDS)
def test_the_front_end_is_no_weight(front_end: str) -> None:
    network = build(ModelSpec.of(ARCH, SIZE, front_end))
    assert all(name.startswith("backbone.") for name in network.state_dict())


def test_a_network_is_the_same_for_the_same_seed() -> None:
    torch.manual_seed(5)
    first = build(SPEC).state_dict()
    torch.manual_seed(5)
    again = build(SPEC).state_dict()
    assert all(torch.equal(first[name], again[name]) for name in first)


def test_a_front_end_draws_no_random_numbers() -> None:
    states = []
    for front_end in FRONT_ENDS:
        torch.manual_seed(5)
        states.append(build(ModelSpec.of(ARCH, SIZE, front_end)).state_dict())
    first = f"backbone.{first_convolution(build(SPEC).backbone)[0]}.weight"
    assert all(
        torch.equal(states[0][name], s[name])
        for s in states
        for name in states[0]
        if name != first or s[name].shape[1] == 3
    )


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_a_wider_first_convolution_keeps_the_variance_of_its_output(arch: str) -> None:
    size = 64
    variances = []
    for front_end in ("rgb", "highpass"):
        torch.manual_seed(0)
        network = build(ModelSpec.of(arch, size, front_end))
        _, convolution = first_convolution(network.backbone)
        assert convolution.weight.shape[1] == convolution.in_channels == network.front_end.channels
        seen = torch.randn(2, convolution.in_channels, size, size)
        variances.append(convolution(seen).var().item())
    assert variances[1] == pytest.approx(variances[0], rel=0.3)


# --- specifications


def test_a_specification_takes_its_normalisation_from_the_architecture() -> None:
    assert (
        ModelSpec(arch=ARCH, image_size=SIZE, front_end="rgb", mean=IMAGENET_MEAN, std=IMAGENET_STD)
        == SPEC
    )
    assert build(SPEC).spec is SPEC


def test_the_normalisation_of_an_architecture_is_respected(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    mean, std = (0.5, 0.4, 0.3), (0.5, 0.25, 0.2)
    entry = dataclasses.replace(ARCHITECTURES[ARCH], mean=mean, std=std)
    monkeypatch.setitem(ARCHITECTURES, ARCH, entry)
    spec = ModelSpec.of(ARCH, SIZE)
    assert (spec.mean, spec.std) == (mean, std)
    images = torch.full((1, 3, SIZE, SIZE), 255, dtype=torch.uint8)
    seen = seen_by(build(spec), images)
    expected = torch.tensor([1.0, 2.4, 3.5])  # (1 - mean) / std
    torch.testing.assert_close(seen[0, :, 0, 0], expected)
    seen = seen_by(build(ModelSpec.of(ARCH, SIZE, "npr")), noise())
    pixels = noise().float()
    expected = (pixels[:, :, 0, 1] - pixels[:, :, 0, 0]) / 255 / torch.tensor(std)
    torch.testing.assert_close(seen[:, :, 0, 1], expected)


def test_a_specification_keeps_its_normalisation_if_the_architecture_gets_another(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A detector is built from its card, whatever the table says when it is loaded."""
    before = seen_by(build(SPEC), noise())
    entry = dataclasses.replace(ARCHITECTURES[ARCH], mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
    monkeypatch.setitem(ARCHITECTURES, ARCH, entry)
    assert torch.equal(seen_by(build(SPEC), noise()), before)


def test_a_specification_cannot_be_changed() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        SPEC.image_size = 64  # type: ignore[misc]


@pytest.mark.parametrize("size", [32, 48, 224])
def test_a_size_that_a_transformer_can_have_is_accepted(size: int) -> None:
    require_buildable(ModelSpec.of("vit_b_16", size))


@pytest.mark.parametrize("make", [build, require_buildable])
def test_a_size_that_a_transformer_cannot_have_is_refused(make: object) -> None:
    assert callable(make)
    with pytest.raises(UserError, match=r"--image-size: vit_b_16 needs a multiple of 16 .got 72"):
        make(ModelSpec.of("vit_b_16", 72))


def test_a_transformer_sees_the_positions_of_a_front_end_with_a_stride() -> None:
    assert build(ModelSpec.of("vit_b_16", 64, "dct")).backbone.image_size == 16
    with pytest.raises(UserError, match=r"with --front-end dct needs a multiple of 64 .got 80"):
        build(ModelSpec.of("vit_b_16", 80, "dct"))


def test_the_last_layer_is_the_head() -> None:
    network = build(SPEC)
    assert isinstance(network.head, nn.Linear)
    assert network.head.out_features == 1


@pytest.mark.parametrize("arch", ["resnet18_layer2", "mobilenet_v3_large", "swin_t"])
def test_a_network_that_attributes_starts_from_the_same_weights_and_gives_the_same_logits(
    arch: str,
) -> None:
    made = []
    for generators in ((), ("a", "b", "c")):
        torch.manual_seed(0)
        spec = dataclasses.replace(ModelSpec.of(arch, 64), generators=generators)
        made.append(build(spec).eval())
    plain, further = made
    images = torch.randint(0, 256, (3, 3, 64, 64), dtype=torch.uint8)
    with torch.no_grad():
        outputs = further.outputs(images)
        assert outputs.shape == (3, 4)
        assert torch.equal(further(images), outputs[:, 0])
        torch.testing.assert_close(outputs[:, 0], plain(images))
    assert torch.equal(AllOutputs(further)(images), further.outputs(images))

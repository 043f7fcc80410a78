"""One suite for every architecture in the registry; a new entry is tested by being there."""

import pytest
import torch
import torchvision
from torch import nn

from synthdetect.models.architectures import ARCHITECTURES
from synthdetect.models.networks import Network, build
from synthdetect.models.spec import ModelSpec

SIZE = 64


@pytest.fixture(scope="module", params=ARCHITECTURES)
def built(request: pytest.FixtureRequest) -> tuple[str, Network]:
    """One network at a time; its last layer is not zero, as some start, and no block is skipped."""
    torch.manual_seed(0)
    network = build(ModelSpec.of(request.param, SIZE))
    for module in network.modules():
        if isinstance(module, torchvision.ops.StochasticDepth):
            module.p = 0.0
    head = network.backbone.get_submodule(ARCHITECTURES[request.param].head)
    assert isinstance(head, nn.Linear)
    nn.init.normal_(head.weight, std=0.05)
    return request.param, network


@pytest.fixture(scope="module")
def images() -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (2, 3, SIZE, SIZE), dtype=torch.uint8, generator=generator)


def test_a_training_step_reaches_every_parameter(
    built: tuple[str, Network], images: torch.Tensor
) -> None:
    _, network = built
    network.train().zero_grad(set_to_none=True)
    logits = network(images)
    assert logits.shape == (2,)
    assert logits.dtype == torch.float32
    loss = nn.functional.binary_cross_entropy_with_logits(logits, torch.tensor([0.0, 1.0]))
    torch.autograd.backward(loss)
    gradients = {name: p.grad for name, p in network.named_parameters()}
    assert [name for name, g in gradients.items() if g is None] == []
    assert [n for n, g in gradients.items() if g is not None and not g.isfinite().all()] == []
    assert [n for n, g in gradients.items() if g is not None and not g.any()] == []


def test_evaluation_is_deterministic_and_scores_images_one_by_one(
    built: tuple[str, Network], images: torch.Tensor
) -> None:
    _, network = built
    network.eval()
    with torch.inference_mode():
        first, again = network(images), network(images)
        alone = torch.cat([network(image[None]) for image in images])
    assert first.shape == (2,)
    assert first.isfinite().all()
    assert torch.equal(first, again)
    torch.testing.assert_close(alone, first, atol=1e-4, rtol=1e-4)


def test_features_are_what_the_last_layer_makes_logits_of(
    built: tuple[str, Network], images: torch.Tensor
) -> None:
    _, network = built
    network.eval()
    names = list(network.state_dict())
    outputs, features = network.with_features(images)
    assert features.shape == (2, network.head.in_features)
    torch.testing.assert_close(network.head(features), outputs)
    torch.testing.assert_close(outputs, network.outputs(images))
    weight = next(network.parameters())
    (gradient,) = torch.autograd.grad(features.square().sum(), weight)
    assert gradient.isfinite().all()
    assert gradient.any()
    assert list(network.state_dict()) == names
    assert not network.head._forward_pre_hooks


def test_the_head_is_the_one_layer_with_one_output(built: tuple[str, Network]) -> None:
    arch, network = built
    head = network.backbone.get_submodule(ARCHITECTURES[arch].head)
    assert isinstance(head, nn.Linear)
    assert head.out_features == 1
    last = [m for m in network.modules() if isinstance(m, nn.Linear)][-1]
    assert last is head


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_the_number_of_parameters_is_the_one_shown(arch: str) -> None:
    with torch.device("meta"):  # shapes only
        network = build(ModelSpec.of(arch, 224))
    assert sum(p.numel() for p in network.parameters()) == ARCHITECTURES[arch].parameters


@pytest.mark.parametrize(
    "arch", [name for name, entry in ARCHITECTURES.items() if entry.library == "torchvision"]
)
def test_the_weights_are_torchvisions_for_that_builder(arch: str) -> None:
    entry = ARCHITECTURES[arch]
    weights = torchvision.models.get_weight(entry.weights)
    enum = torchvision.models.get_model_weights(entry.builder)
    assert weights in list(enum)
    assert torchvision.models.get_weight(entry.first_weights) is next(iter(enum))
    transforms = weights.transforms()
    assert (tuple(transforms.mean), tuple(transforms.std)) == (entry.mean, entry.std)


def test_a_network_without_its_last_stages_is_the_first_part_of_the_whole_one() -> None:
    torch.manual_seed(0)
    network = build(ModelSpec.of("resnet18_layer2", SIZE)).eval()
    whole = torchvision.models.resnet18(weights=None).eval()
    state = network.backbone.state_dict()
    whole.load_state_dict({k: v for k, v in state.items() if "fc." not in k}, strict=False)
    kept: list[torch.Tensor] = []
    whole.layer2.register_forward_hook(lambda module, given, made: kept.append(made))
    images = torch.rand(2, 3, SIZE, SIZE) * 255
    with torch.inference_mode():
        _, features = network.with_features(images)
        whole(network.front_end(images))
    torch.testing.assert_close(features, kept[0].mean(dim=(2, 3)))


def test_a_dense_network_sees_every_pixel_at_full_resolution() -> None:
    network = build(ModelSpec.of("resnet18_layer2_dense", SIZE))
    with torch.inference_mode():
        stem = network.backbone.get_submodule("layer1")
        sizes: list[torch.Size] = []
        stem.register_forward_hook(lambda module, given, made: sizes.append(made.shape[2:]))
        network(torch.zeros(1, 3, SIZE, SIZE))
    assert sizes == [torch.Size([SIZE, SIZE])]

"""One suite for every adaptation in the registry, and the papers' formulas by hand."""

import math

import pytest
import torch
from torch import Tensor, nn

from synthdetect.models.architectures import ARCHITECTURES
from synthdetect.models.networks import Network, build
from synthdetect.models.spec import ModelSpec
from synthdetect.runs.options import TrainOptions
from synthdetect.system.errors import UserError
from synthdetect.training.adaptation import Coral, Dann, Mmd, reversal
from synthdetect.training.devices import Device
from synthdetect.training.loop import start_training
from synthdetect.training.objective import Objective, Step
from synthdetect.training.options import ADAPTATIONS
from tests.training.conftest import CPU, options_of

WITH_LOSS = [name for name in ADAPTATIONS if name != "adabn"]


def features(shift: float = 0.0, rows: int = 64, scale: float = 1.0, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(rows, 5, generator=generator) * scale + shift


def make(name: str, size: int = 5) -> nn.Module:
    torch.manual_seed(0)
    made: nn.Module = ADAPTATIONS[name].load()(size)
    return made


@pytest.mark.parametrize("name", WITH_LOSS)
def test_gradients_reach_both_kinds_of_features_and_every_weight(name: str) -> None:
    adaptation = make(name)
    source, target = features().requires_grad_(), features(2, 32, 3.0, 1).requires_grad_()
    loss = adaptation(source, target, 0.5)
    assert loss.shape == ()
    assert loss > 0
    torch.autograd.backward(loss)
    for tensor in (source, target, *adaptation.parameters()):
        assert tensor.grad is not None
        assert tensor.grad.isfinite().all()
        assert tensor.grad.any()


@pytest.mark.parametrize("name", WITH_LOSS)
def test_features_become_alike(name: str) -> None:
    """Only the target's scale can change; with it goes its mean."""
    adaptation = make(name)
    source, target = features(), features(3, scale=3.0, seed=1)
    scale = nn.Parameter(torch.ones(()))
    optimizer = torch.optim.Adam([scale, *adaptation.parameters()], lr=0.01)

    def distance() -> float:
        now = target * scale.detach()
        return ((source.mean() - now.mean()).abs() + (source.std() - now.std()).abs()).item()

    before = distance()
    for _ in range(200):
        optimizer.zero_grad()
        torch.autograd.backward(adaptation(source, target * scale, 0.3))
        optimizer.step()
    assert distance() < before / 2


@pytest.mark.parametrize("name", WITH_LOSS)
def test_a_batch_of_two_is_enough(name: str) -> None:
    assert make(name)(features(rows=2), features(1, 2), 0.0).isfinite()


def test_the_factor_of_the_reversed_gradient() -> None:
    assert reversal(0) == 0
    assert reversal(0.5) == pytest.approx(2 / (1 + math.exp(-5)) - 1)
    assert reversal(1) == pytest.approx(0.9999, abs=1e-4)


def test_the_reversed_gradient_is_the_discriminators_times_minus_the_factor() -> None:
    adaptation = make("dann")
    assert isinstance(adaptation, Dann)
    both = torch.cat([features(rows=4), features(1, 4)]).requires_grad_()
    kinds = torch.tensor([0.0] * 4 + [1.0] * 4)
    plain = nn.functional.binary_cross_entropy_with_logits(
        adaptation.discriminator(both).squeeze(1), kinds
    )
    loss = adaptation(both[:4], both[4:], 0.2)
    torch.testing.assert_close(loss, plain)
    (expected,) = torch.autograd.grad(plain, both, retain_graph=True)
    (found,) = torch.autograd.grad(loss, both, retain_graph=True)
    torch.testing.assert_close(found, -reversal(0.2) * expected)
    weights = list(adaptation.parameters())  # the discriminator itself learns unreversed
    for a, b in zip(
        torch.autograd.grad(loss, weights), torch.autograd.grad(plain, weights), strict=True
    ):
        torch.testing.assert_close(a, b)


def test_each_kind_counts_one_half() -> None:
    adaptation = make("dann")
    few, many = features(rows=3), features(1, 3)
    torch.testing.assert_close(adaptation(few, many.repeat(5, 1), 0.5), adaptation(few, many, 0.5))


def test_coral_by_hand() -> None:
    """Covariances [[2, 2], [2, 2]] and [[2, -2], [-2, 2]]: 2 * 4^2 / (4 * 2^2 + 4 * 2^2)."""
    source, target = torch.tensor([[0.0, 0], [2, 2]]), torch.tensor([[0.0, 0], [2, -2]])
    assert Coral(2)(source, target, 0.0).item() == pytest.approx(1.0)
    assert Coral(2)(source, source + 7, 0.0).item() == pytest.approx(0.0)


def test_mmd_by_hand() -> None:
    """Squared distances: 4 in each kind; 1, 9, 1, 1 between them. Their mean is 20 / 6."""
    source, target = torch.tensor([[0.0], [2.0]]), torch.tensor([[1.0], [3.0]])

    def kernel(square: float) -> float:
        widths = [factor * 20 / 6 for factor in (0.25, 0.5, 1, 2, 4)]
        return sum(math.exp(-square / width) for width in widths) / 5

    between = (kernel(1) + kernel(9) + kernel(1) + kernel(1)) / 4
    expected = kernel(4) + kernel(4) - 2 * between
    assert Mmd(1)(source, target, 0.0).item() == pytest.approx(expected, rel=1e-5)


def test_mmd_of_equal_distributions_is_zero_in_expectation() -> None:
    same = [Mmd(5)(features(seed=2 * i), features(seed=2 * i + 1), 0.0) for i in range(50)]
    other = Mmd(5)(features(), features(0.5, seed=1), 0.0)
    assert abs(torch.stack(same).mean()) < 0.002
    assert other > 0.02


def test_mmd_does_not_depend_on_the_scale_of_the_features() -> None:
    source, target = features(), features(0.5, seed=1)
    torch.testing.assert_close(Mmd(5)(source * 9, target * 9, 0.0), Mmd(5)(source, target, 0.0))


def test_mmd_of_equal_images_is_zero() -> None:
    assert Mmd(5)(torch.ones(4, 5), torch.ones(4, 5), 0.0) == 0


def test_adabn_adds_no_loss() -> None:
    assert ADAPTATIONS["adabn"].load()(5) is None


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_adabn_is_refused_without_batch_normalisation(arch: str) -> None:
    given = {"adaptation": "adabn", "target": "photos", "arch": arch}
    with torch.device("meta"):
        modules = build(ModelSpec.of(arch, 32)).modules()
    if any(isinstance(module, nn.BatchNorm2d) for module in modules):
        assert TrainOptions.resolve(given).model.arch == arch
    else:
        with pytest.raises(UserError, match=f"--adaptation adabn: {arch} .*resnet18"):
            TrainOptions.resolve(given)


# --- within a step


@pytest.fixture(scope="module")
def network() -> Network:
    torch.manual_seed(0)
    return build(ModelSpec.of("mobilenet_v3_large", 32))


def step(epochs: float = 1.0) -> Step:
    images = torch.rand(8, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 255
    return Step(images[:5], torch.tensor([0.0, 1, 0, 1, 1]), epochs, images[5:])


@pytest.mark.parametrize("name", WITH_LOSS)
def test_its_weighted_loss_is_added_to_the_labels(name: str, network: Network) -> None:
    network.train()

    def loss(weight: float) -> float:
        torch.manual_seed(1)
        options = options_of(adaptation=name, target="there", adaptation_weight=weight)
        value, logits = Objective(options, CPU, network)(network, step())
        assert logits.shape == (5,)
        return value.item()  # type: ignore[no-any-return]

    once, twice, thrice = (loss(weight) for weight in (1, 2, 3))
    assert abs(twice - once) > 1e-5  # an unbiased estimate may be negative
    assert thrice - twice == pytest.approx(twice - once, rel=1e-3)


@pytest.mark.parametrize("name", WITH_LOSS)
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_one_step_trains_everything_there_is(name: str, precision: str, network: Network) -> None:
    options = options_of(adaptation=name, target="there")
    training = start_training(network, Device("cpu", precision, 0), options)
    network.train()
    training.optimizer.zero_grad()
    loss, _ = training.objective(network, step())
    torch.autograd.backward(loss)
    learning = [*network.parameters(), *training.objective.parameters()]
    assert sum(len(group["params"]) for group in training.optimizer.param_groups) == len(learning)
    assert all(p.grad is not None and p.grad.any() for p in learning)


def test_the_unlabelled_images_change_the_gradient_of_the_body(network: Network) -> None:
    """By DANN only once its factor has left zero, which it has after the first step."""
    network.train()

    def change(adaptation: str, epochs: float) -> float:
        """How much the gradient changes when the adaptation's weight does."""
        gradients = []
        for weight in (1, 5):
            torch.manual_seed(1)
            options = options_of(adaptation=adaptation, target="there", adaptation_weight=weight)
            objective = Objective(options, CPU, network)
            loss, _ = objective(network, step(epochs))
            gradients.append(torch.autograd.grad(loss, next(network.parameters()))[0])
        return float((gradients[1] - gradients[0]).norm() / gradients[0].norm())

    assert change("dann", 0.0) < 1e-3
    assert change("dann", 12.0) > 0.01
    assert change("coral", 0.0) > 0.01
    assert change("mmd", 0.0) > 0.01

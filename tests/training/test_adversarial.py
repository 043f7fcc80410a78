"""One suite for every attack in the registry."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from synthdetect.training.adversarial import attacked
from synthdetect.training.objective import Objective, Step
from synthdetect.training.options import ATTACKS, AdversarialOptions
from tests.training.conftest import CPU, Tiny, options_of

TARGETS = torch.tensor([0.0, 1, 1, 0, 1, 0, 0.3, 1])


@pytest.fixture
def network() -> Tiny:
    """With normalisation, whose statistics an attack must leave alone, and dropout, likewise."""
    torch.manual_seed(0)
    return Tiny(dropout=0.5)


def images() -> Tensor:
    """Some of them at the ends of the range."""
    noise = torch.rand(8, 3, 12, 12, generator=torch.Generator().manual_seed(0))
    return (noise * 300 - 20).clamp(0, 255)


def options(name: str, **given: Any) -> AdversarialOptions:
    return AdversarialOptions.resolve({"adversarial": name, "adversarial_share": 1, **given})


def losses(network: nn.Module, changed: Tensor) -> Tensor:
    network.eval()
    with torch.no_grad():
        return F.binary_cross_entropy_with_logits(network(changed), TARGETS, reduction="none")


@pytest.mark.parametrize("name", ATTACKS)
@pytest.mark.parametrize("epsilon", [0.5, 4.0, 255.0])
def test_changed_images_stay_in_the_ball_and_in_range(
    network: Tiny, name: str, epsilon: float
) -> None:
    changed = attacked(network, images(), TARGETS, options(name, adversarial_epsilon=epsilon))
    assert changed.min() >= 0
    assert changed.max() <= 255
    assert (changed - images()).abs().max() <= epsilon + 1e-4
    assert not changed.requires_grad


@pytest.mark.parametrize("name", ATTACKS)
def test_they_mislead_the_network_more_than_noise_does(network: Tiny, name: str) -> None:
    changed = attacked(network, images(), TARGETS, options(name, adversarial_epsilon=4))
    noise = 4 * torch.randn_like(images()).sign()
    before = losses(network, images())
    assert (losses(network, changed) > before).all()
    gain, by_noise = (losses(network, x) - before for x in (changed, images() + noise))
    assert gain.mean() > 3 * by_noise.abs().mean()


@pytest.mark.parametrize("name", ATTACKS)
@pytest.mark.parametrize("training", [True, False])
def test_an_attack_leaves_the_network_as_it_was(network: Tiny, name: str, training: bool) -> None:
    network.train(training)
    before = {key: value.clone() for key, value in network.state_dict().items()}
    given = images()
    attacked(network, given, TARGETS, options(name))
    assert network.training == training
    assert all(module.training == training for module in network.modules())
    assert all(torch.equal(v, before[k]) for k, v in network.state_dict().items())
    assert all(p.grad is None for p in network.parameters())
    assert torch.equal(given, images())


@pytest.mark.parametrize("name", ATTACKS)
def test_the_first_images_of_a_batch_are_changed_and_no_others(network: Tiny, name: str) -> None:
    changed = attacked(network, images(), TARGETS, options(name, adversarial_share=0.25))
    differs = (changed != images()).flatten(1).any(dim=1)
    assert differs.tolist() == [True, True] + [False] * 6


def test_fgsm_is_one_step_along_the_sign(network: Tiny) -> None:
    network.eval()
    given = images().requires_grad_()
    loss = F.binary_cross_entropy_with_logits(network(given), TARGETS, reduction="sum")
    (gradient,) = torch.autograd.grad(loss, given)
    expected = (images() + 3 * gradient.sign()).clamp(0, 255)
    changed = attacked(network, images(), TARGETS, options("fgsm", adversarial_epsilon=3))
    torch.testing.assert_close(changed, expected)


def test_more_steps_mislead_more_and_the_start_is_random(network: Tiny) -> None:

    def misled(steps: int, seed: int = 0) -> Tensor:
        torch.manual_seed(seed)
        given = options("pgd", adversarial_steps=steps, adversarial_epsilon=40)
        return attacked(network, images(), TARGETS, given)

    few, many = (losses(network, misled(steps)).mean() for steps in (1, 20))
    assert many > few
    assert torch.equal(misled(1), misled(1))
    assert not torch.equal(misled(1), misled(1, seed=1))


@pytest.mark.parametrize("name", ATTACKS)
def test_the_first_epochs_train_on_unchanged_images(network: Tiny, name: str) -> None:
    network.eval()
    objective = Objective(
        options_of(adversarial=name, adversarial_share=1, adversarial_from=0.4, epochs=5),
        CPU,
        network,
    )
    clean, _ = objective(network, Step(images(), TARGETS, 1.99))
    changed, logits = objective(network, Step(images(), TARGETS, 2.0))
    torch.testing.assert_close(clean, losses(network, images()).mean())
    assert changed > clean
    torch.testing.assert_close(changed, F.binary_cross_entropy_with_logits(logits, TARGETS))


@pytest.mark.parametrize("name", ATTACKS)
def test_gradients_of_a_step_on_changed_images_reach_every_weight(network: Tiny, name: str) -> None:
    network.train()
    given = options_of(adversarial=name, adversarial_share=1, adversarial_from=0)
    objective = Objective(given, CPU, network)
    loss, _ = objective(network, Step(images(), TARGETS))
    torch.autograd.backward(loss)
    gradients = [parameter.grad for parameter in network.parameters()]
    assert len(gradients) == 5
    assert all(g is not None and g.isfinite().all() and g.abs().max() > 1e-9 for g in gradients)

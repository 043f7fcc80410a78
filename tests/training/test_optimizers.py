"""One suite for every optimizer in the registry, and the papers' rules by hand."""

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from synthdetect.models.networks import build
from synthdetect.models.spec import ModelSpec
from synthdetect.training.optimizers import make_optimizer
from synthdetect.training.options import OPTIMIZERS, OptimOptions
from tests.training.conftest import Tiny

LR = {"adamw": 0.1, "sgd": 0.02, "lookahead": 0.1, "ranger": 0.3}


def make(name: str, *parameters: Tensor, **given: Any) -> Optimizer:
    options = OptimOptions.resolve({"optimizer": name, "weight_decay": 0, **given})
    wrapped = [p if isinstance(p, nn.Parameter) else nn.Parameter(p) for p in parameters]
    return make_optimizer([nn.ParameterList(wrapped)], options, fused=True)


def bowl(optimizer: Optimizer) -> float:
    """One step down a bowl of unequal sides; returns how high it was.

    The mean of each row is zero at its bottom: centralised gradients never change a row's mean.
    """
    total = torch.zeros(())
    for parameter in optimizer.param_groups[0]["params"]:
        sides = torch.linspace(0.5, 2, parameter.numel()).view_as(parameter)
        bottom = torch.linspace(-3, 3, parameter.shape[-1])
        total = total + (sides * (parameter - bottom) ** 2).sum()
    optimizer.zero_grad()
    torch.autograd.backward(total)
    optimizer.step()
    return total.item()


def by_constant_gradient(optimizer: Optimizer, steps: int) -> list[float]:
    (parameter,) = optimizer.param_groups[0]["params"]
    values = []
    for _ in range(steps):
        parameter.grad = torch.ones_like(parameter)
        optimizer.step()
        values.append(parameter.item())
    return values


def test_every_optimizer_has_a_rate_for_these_tests() -> None:
    assert set(LR) == set(OPTIMIZERS)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_it_goes_down_a_bowl_to_its_bottom(name: str) -> None:
    optimizer = make(name, torch.zeros(4, 3), torch.zeros(5), lr=LR[name])
    heights = [bowl(optimizer) for _ in range(300)]
    assert heights[10] < heights[0]
    assert heights[-1] < heights[0] / 100


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_its_first_steps_go_down_too(name: str) -> None:
    values = by_constant_gradient(make(name, torch.tensor([1.0]), lr=0.01), 8)
    assert values[0] < 1
    assert values[4] < values[0]


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_weights_decay(name: str) -> None:
    """Without a gradient, by 0.995 a step; Lookahead takes back half of it."""
    ends = []
    for decay in (0, 0.5):
        optimizer = make(name, torch.ones(1), lr=0.01, weight_decay=decay, momentum=0)
        (parameter,) = optimizer.param_groups[0]["params"]
        for _ in range(10):
            parameter.grad = torch.zeros(1)
            optimizer.step()
        ends.append(parameter.item())
    assert ends[0] == 1
    assert 0.995**10 - 1e-6 < ends[1] < 0.995**4


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_its_state_continues_identically(name: str) -> None:
    """Saved in the middle of Lookahead's five steps."""
    first = make(name, torch.zeros(4, 3), torch.zeros(5))
    for _ in range(7):
        bowl(first)
    parameters = [p.detach().clone() for p in first.param_groups[0]["params"]]
    second = make(name, *parameters)
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    for _ in range(9):
        assert bowl(first) == bowl(second)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_the_schedule_reaches_it(name: str) -> None:
    optimizer = make(name, torch.tensor([1.0]), lr=0.1)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=1)
    by_constant_gradient(optimizer, 10)
    schedule.step()  # to a rate of zero
    before = optimizer.param_groups[0]["params"][0].item()
    values = by_constant_gradient(optimizer, 4)  # up to where slow weights are next set
    assert values == pytest.approx([before] * 4)


def test_lookaheads_rule_by_hand() -> None:
    """SGD, rate 0.1, k = 5, alpha = 0.5, gradient 1, from 1: Lookahead's paper, algorithm 1."""
    from pytorch_optimizer import Lookahead

    ours = make("lookahead", torch.ones(1))
    assert isinstance(ours, Lookahead)
    assert (ours.k, ours.alpha, ours.pullback_momentum) == (5, 0.5, "none")
    parameter = nn.Parameter(torch.ones(1))
    rule = Lookahead(torch.optim.SGD([parameter], lr=0.1), k=ours.k, alpha=ours.alpha)
    values = by_constant_gradient(rule, 10)
    assert values == pytest.approx([0.9, 0.8, 0.7, 0.6, 0.75, 0.65, 0.55, 0.45, 0.35, 0.5])


def test_lookahead_goes_around_adamw() -> None:
    """AdamW's steps by a constant gradient are its rate: 0.1 each."""
    optimizer = make("lookahead", torch.ones(1), lr=0.1, lookahead_steps=2, lookahead_alpha=0.25)
    values = by_constant_gradient(optimizer, 4)
    assert values == pytest.approx([0.9, 0.95, 0.85, 0.9], abs=1e-6)


def test_ranger_is_given_lookaheads_options() -> None:
    """Before RAdam's rectification begins its steps are its rate: 0.1 each."""
    optimizer = make("ranger", torch.ones(1), lr=0.1, lookahead_steps=2, lookahead_alpha=0.25)
    values = by_constant_gradient(optimizer, 4)
    assert values == pytest.approx([0.9, 0.95, 0.85, 0.9], abs=1e-6)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"momentum": 0, "nesterov": False}, [0.9, 0.8, 0.7]),
        ({"momentum": 0, "nesterov": True}, [0.9, 0.8, 0.7]),
        ({"momentum": 0.5, "nesterov": False}, [0.9, 0.75, 0.575]),
        ({"momentum": 0.5, "nesterov": True}, [0.85, 0.675, 0.4875]),
    ],
)
def test_momentum_by_hand(given: dict[str, Any], expected: list[float]) -> None:
    values = by_constant_gradient(make("sgd", torch.ones(1), lr=0.1, **given), 3)
    assert values == pytest.approx(expected)


# --- weight decay of biases and normalisation weights


def grouped(network: nn.Module, optimizer: Optimizer) -> list[tuple[float, list[str]]]:
    """The weight decay of every group, and the names of its parameters."""
    names = {parameter: name for name, parameter in network.named_parameters()}
    return [(g["weight_decay"], [names[p] for p in g["params"]]) for g in optimizer.param_groups]


def of(network: nn.Module, **given: Any) -> Optimizer:
    options = OptimOptions.resolve({"weight_decay": 0.1, **given})
    return make_optimizer([network], options, fused=True)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_all_parameters_are_in_one_group_by_default(name: str) -> None:
    network = Tiny()
    names = [name for name, _ in network.named_parameters()]
    assert grouped(network, of(network, optimizer=name)) == [(0.1, names)]


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_biases_and_normalisation_weights_are_in_a_group_without_decay(name: str) -> None:
    network = Tiny()
    assert grouped(network, of(network, optimizer=name, decay_norms=False)) == [
        (0.1, ["convolution.weight", "last.weight"]),
        (0.0, ["norm.weight", "norm.bias", "last.bias"]),
    ]


@pytest.mark.parametrize("arch", ["mobilenet_v3_large", "swin_t"])
def test_in_a_real_network_the_group_without_decay_is_biases_and_normalisation(arch: str) -> None:
    with torch.device("meta"):  # shapes only
        network = build(ModelSpec.of(arch, 32))
    norms = (nn.BatchNorm2d, nn.LayerNorm)
    expected = {
        f"{name}.{part}"
        for name, module in network.named_modules()
        for part, _ in module.named_parameters(recurse=False)
        if part.endswith("bias") or isinstance(module, norms)
    }
    expected -= {name for name in expected if name.endswith("relative_position_bias")}
    (_, decayed), (_, others) = grouped(network, of(network, decay_norms=False))
    tables = {name for name in decayed if name.endswith("relative_position_bias_table")}
    assert set(others) == expected - tables
    assert set(decayed) | set(others) == {name for name, _ in network.named_parameters()}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_without_a_gradient_only_the_decayed_parameters_shrink(name: str) -> None:
    network = Tiny()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.fill_(1)
    optimizer = of(network, optimizer=name, decay_norms=False, weight_decay=0.5, lr=0.01)
    for _ in range(10):
        for parameter in network.parameters():
            parameter.grad = torch.zeros_like(parameter)
        optimizer.step()
    ends = {name: {*p.detach().flatten().tolist()} for name, p in network.named_parameters()}
    assert {name for name, values in ends.items() if values == {1}} == {
        "norm.weight", "norm.bias", "last.bias",
    }  # fmt: skip
    assert all(max(ends[name]) < 0.99 for name in ("convolution.weight", "last.weight"))

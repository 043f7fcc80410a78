"""The network that is evaluated, where its weights or its statistics are not those that learn."""

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from synthdetect.training import evaluated
from synthdetect.training.evaluated import evaluated_network
from synthdetect.training.loop import Hooks, TrainingState, start_training, train_epoch
from synthdetect.training.objective import Step
from synthdetect.training.optimizers import slow_weights
from synthdetect.training.options import OPTIMIZERS
from tests.training.conftest import CPU, Tiny, options_of


def images(seed: int, scale: float = 255.0) -> Tensor:
    return torch.rand(8, 3, 12, 12, generator=torch.Generator().manual_seed(seed)) * scale


def trained(steps: int, **given: object) -> TrainingState:
    torch.manual_seed(0)
    training = start_training(Tiny(dropout=0.5), CPU, options_of(**given))
    targets = (torch.arange(8) % 2).float()
    train_epoch(training, [Step(images(seed), targets) for seed in range(steps)], Hooks())
    return training


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_only_lookahead_and_ranger_have_slow_weights(name: str) -> None:
    training = trained(2, optimizer=name)
    slow = slow_weights(training.optimizer)
    assert set(slow) == (
        set(training.network.parameters()) if name in ("lookahead", "ranger") else set()
    )


@pytest.mark.parametrize("name", ["lookahead", "ranger"])
def test_the_slow_weights_are_those_of_the_last_time_they_moved(name: str) -> None:
    """After seven steps of k = 5 they are the weights after five steps."""
    after_five, after_seven = (trained(steps, optimizer=name) for steps in (5, 7))
    slow = slow_weights(after_seven.optimizer)
    result = evaluated_network(after_seven.network, slow, [images(9)], CPU)
    pairs = zip(result.parameters(), after_five.network.parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)
    learning = after_seven.network.parameters()
    assert not any(torch.equal(a, b) for a, b in zip(result.parameters(), learning, strict=True))


def test_the_statistics_are_the_means_over_the_batches() -> None:
    training = trained(3)
    network = training.network
    batches = [images(seed, 100) for seed in range(3)]
    result = evaluated_network(network, {}, iter(batches), CPU)
    maps = [network.convolution(batch / 255 - 0.5).transpose(0, 1).flatten(1) for batch in batches]
    norm = result.get_submodule("norm")
    for found, expected in (
        (norm.running_mean, torch.stack([m.mean(dim=1) for m in maps]).mean(dim=0)),
        (norm.running_var, torch.stack([m.var(dim=1) for m in maps]).mean(dim=0)),
    ):
        torch.testing.assert_close(found, expected)
    assert norm.momentum == network.get_submodule("norm").momentum


def test_the_network_that_learns_stays_as_it_is() -> None:
    training = trained(7, optimizer="lookahead")
    before = {name: value.clone() for name, value in training.network.state_dict().items()}
    slow = slow_weights(training.optimizer)
    kept = {parameter: value.clone() for parameter, value in slow.items()}
    result = evaluated_network(training.network, slow, [images(9)], CPU)
    with torch.no_grad():
        for parameter in result.parameters():
            parameter.zero_()
    after = training.network.state_dict()
    assert all(torch.equal(after[name], value) for name, value in before.items())
    assert all(torch.equal(slow[parameter], value) for parameter, value in kept.items())
    assert training.network.training


def test_a_bounded_number_of_batches_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evaluated, "STATISTICS_BATCHES", 3)
    read = []

    def batches() -> Iterator[Tensor]:
        for seed in range(9):
            read.append(seed)
            yield images(seed)

    evaluated_network(Tiny(), {}, batches(), CPU)
    assert read == [0, 1, 2]
    evaluated_network(Tiny(norm=False), {}, batches(), CPU)
    assert read == [0, 1, 2], "there are no statistics to estimate"

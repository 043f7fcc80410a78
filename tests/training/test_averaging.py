"""Averages of the weights: their values, and which network is evaluated."""

from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from synthdetect.training.averaging import WeightAverage
from synthdetect.training.loop import Hooks, TrainingState, start_training, train_epoch
from synthdetect.training.objective import Step
from tests.training.conftest import CPU, Tiny, options_of


def started(**given: object) -> TrainingState:
    torch.manual_seed(0)
    return start_training(Tiny(), CPU, options_of(**given))


def step(training: TrainingState, seed: int) -> None:
    images = torch.rand(8, 3, 12, 12, generator=torch.Generator().manual_seed(seed)) * 255
    train_epoch(training, [Step(images, (torch.arange(8) % 2).float())], Hooks())


def state(network: torch.nn.Module) -> dict[str, Tensor]:
    return {
        name: value.clone()
        for name, value in network.state_dict().items()
        if value.is_floating_point()
    }


def after_each_step(training: TrainingState, steps: int) -> Iterator[dict[str, Tensor]]:
    for seed in range(steps):
        step(training, seed)
        yield state(training.network)


def test_without_an_average_there_is_none() -> None:
    training = started()
    step(training, 0)
    assert training.average.network is None
    assert training.average.weights(training.network) == {}
    assert training.average.state_dict() == {}


def test_an_exponential_average_follows_weights_and_statistics_at_every_step() -> None:
    training = started(average="ema", ema_decay=0.8)
    expected: dict[str, Tensor] = {}
    for now in after_each_step(training, 4):
        expected = {n: 0.8 * expected[n] + 0.2 * now[n] for n in now} if expected else now
    averaged = training.average.network
    assert averaged is not None
    for name, value in state(averaged).items():
        torch.testing.assert_close(value, expected[name])
    assert training.average.has_statistics


def test_a_plain_average_takes_the_ends_of_the_last_epochs() -> None:
    training = started(average="swa", swa_from=0.5, epochs=4)
    ends = []
    for epoch, now in enumerate(after_each_step(training, 4), 1):
        training.average.after_epoch(training.network, epoch)
        if epoch > 2:
            ends.append(now)
        assert (training.average.network is None) == (epoch <= 2)
    weights = training.average.weights(training.network)
    for name, parameter in training.network.named_parameters():
        torch.testing.assert_close(weights[parameter], (ends[0][name] + ends[1][name]) / 2)
    assert not training.average.has_statistics


def test_the_state_of_one_kind_does_not_fit_another() -> None:
    training = started(average="ema")
    step(training, 0)
    kept = training.average.state_dict()
    other = WeightAverage(training.network, replace(training.options.optim, average="none"))
    with pytest.raises(RuntimeError, match="Unexpected key"):
        other.load_state_dict(kept)

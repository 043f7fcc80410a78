"""Every strategy is a valid difference from the baseline, for all values of its search space."""

import warnings

import optuna
import pytest
import torch
from optuna.trial import FixedTrial
from torch import nn

from benchmarks.adaptation import gradient_ratio, weights_of
from sweeps.options import SweepOptions
from sweeps.statistics.paper import PAPER_CLAIMS
from sweeps.strategies import (
    BASELINE,
    PAPER_STRATEGIES,
    STRATEGIES,
    FloatRange,
    IntRange,
    first_values,
    options_of,
    space,
)
from sweeps.tuning import suggest
from synthdetect.models.networks import build
from synthdetect.runs.options import TrainOptions
from synthdetect.system.errors import UserError
from synthdetect.training.devices import Device
from synthdetect.training.loop import start_training
from synthdetect.training.objective import Step
from synthdetect.training.optimizers import make_optimizer
from synthdetect.training.schedules import make_schedule
from synthdetect.training.session import model_spec

BASE = {"arch": "resnet18", "lr": 1e-3, "epochs": 3}
SIDES = [BASELINE, *STRATEGIES]


@pytest.mark.parametrize("side", SIDES)
def test_all_values_of_a_search_space_are_valid_options(side: str) -> None:
    parameters = space(side, 1e-3, 3)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    sampled = [suggest(study.ask(), parameters) for _ in range(20)]
    for tuned in [first_values(parameters), *sampled]:
        options = options_of(side, BASE, tuned, "list.csv")
        assert {name: options.value(name) for name in tuned} == tuned


@pytest.mark.parametrize("side", SIDES)
def test_the_first_values_are_in_the_search_space(side: str) -> None:
    parameters = space(side, 1e-3, 3)
    first = first_values(parameters)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # Optuna warns of a fixed value outside its distribution
        assert suggest(FixedTrial(first), parameters) == first  # type: ignore[arg-type]


@pytest.mark.parametrize("name", STRATEGIES)
def test_a_strategy_differs_from_the_baseline_in_its_own_options_only(name: str) -> None:
    first = first_values(space(name, 1e-3, 3))
    values = options_of(name, BASE, first, "list.csv").to_json()
    baseline = TrainOptions.resolve(BASE).to_json()
    differing = {option for option in values if values[option] != baseline[option]}
    assert differing <= {*STRATEGIES[name].differences, *STRATEGIES[name].space, "lr", "target"}
    assert differing - {"lr"}, "the first trial must apply the strategy"


@pytest.mark.parametrize("lr", [1e-7, 3e-4, 5.0])
def test_the_range_of_the_learning_rate_includes_the_baselines(lr: float) -> None:
    for side in SIDES:
        parameter = space(side, lr, 3)["lr"]
        if side == BASELINE or "lr" not in STRATEGIES[side].space:
            assert parameter.first == lr
            assert isinstance(parameter.range, FloatRange)
            assert parameter.range.low <= lr <= parameter.range.high


def test_there_is_a_paper_claim_for_the_strategies_of_the_paper_and_for_no_others() -> None:
    assert set(PAPER_STRATEGIES) == set(PAPER_CLAIMS) & set(STRATEGIES)


def test_only_strategies_that_adapt_get_a_target() -> None:
    for name, strategy in STRATEGIES.items():
        options = options_of(name, BASE, first_values(space(name, 1e-3, 3)), "list.csv")
        assert (options.adaptation.target != "") == strategy.needs_target


@pytest.mark.parametrize("given", ["focal,magic", "focal,focal"])
def test_unknown_and_repeated_strategies_are_refused(given: str) -> None:
    with pytest.raises(UserError, match="--strategies"):
        SweepOptions.resolve({"strategies": given})


def test_the_strategies_of_the_paper_are_compared_unless_some_are_given() -> None:
    assert SweepOptions.resolve({}).compared == tuple(PAPER_STRATEGIES)
    assert SweepOptions.resolve({"strategies": "sgd,ema"}).compared == ("sgd", "ema")


@pytest.mark.parametrize("name", ["sgd", "ranger", "lookahead"])
def test_weight_decay_alone_leaves_most_of_the_weights(name: str) -> None:
    """25 epochs of 20 steps by cosine annealing, at a high learning rate of each optimizer."""
    first = first_values(space(name, 1e-3, 25))
    tuned = {**first, "lr": 0.1 if name == "sgd" else 1e-2}
    optim = options_of(name, {**BASE, "epochs": 25}, tuned).optim
    layer = nn.Linear(2, 2)
    nn.init.ones_(layer.weight)
    optimizer = make_optimizer([layer], optim, fused=False)
    schedule = make_schedule(optimizer, optim)
    for _ in range(25):
        for _ in range(20):
            for parameter in layer.parameters():
                parameter.grad = torch.zeros_like(parameter)
            optimizer.step()
        schedule.step()
    assert layer.weight.min() > 0.9


@pytest.mark.parametrize("epochs", [1, 2, 3, 6, 25])
def test_the_warm_up_of_the_vit_fits_into_any_number_of_epochs(epochs: int) -> None:
    parameter = space("vit", 1e-3, epochs)["warmup_epochs"]
    assert isinstance(parameter.range, IntRange)
    assert 0 <= parameter.first <= parameter.range.high < epochs
    if epochs == 25:
        assert (parameter.first, parameter.range.high) == (5, 10)


def test_the_vit_starts_with_what_its_training_needs() -> None:
    options = options_of("vit", {**BASE, "epochs": 25}, first_values(space("vit", 1e-3, 25)))
    assert options.optim.warmup_epochs > 0
    assert options.optim.clip_norm > 0
    assert not options.optim.decay_norms


@pytest.mark.parametrize("name", ["dann", "coral", "mmd"])
def test_the_weight_of_an_adaptation_spans_no_effect_to_too_much(name: str) -> None:
    """As `benchmarks.adaptation` measures on the sample; here on noise, in the middle of training.

    DANN's discriminator cannot tell yet, so its gradient is smaller than after some epochs.
    """
    options = options_of(name, {**BASE, "image_size": 64, "weights": "none"},
                         first_values(space(name, 1e-3, 3)), "list.csv")  # fmt: skip
    torch.manual_seed(0)
    training = start_training(build(model_spec(options)), Device("cpu", "fp32", 0), options)
    noise = torch.rand(64, 3, 64, 64) * 255
    step = Step(noise[:32], (torch.arange(32) % 2).float(), 1.5, noise[32:] * 0.5)
    ratio, weights = gradient_ratio(training, step), weights_of(name)
    assert ratio * weights["lowest"] < 0.1
    assert ratio * weights["highest"] > 0.5

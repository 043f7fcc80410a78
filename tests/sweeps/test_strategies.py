"""Every strategy is a valid difference from the baseline, for all values of its search space."""

import warnings

import optuna
import pytest
from optuna.trial import FixedTrial

from sweeps.options import SweepOptions
from sweeps.statistics.paper import PAPER_CLAIMS
from sweeps.strategies import BASELINE, STRATEGIES, FloatRange, first_values, options_of, space
from sweeps.tuning import suggest
from synthdetect.runs.options import TrainOptions
from synthdetect.system.errors import UserError

BASE = {"arch": "resnet18", "lr": 1e-3, "epochs": 3}
SIDES = [BASELINE, *STRATEGIES]


@pytest.mark.parametrize("side", SIDES)
def test_all_values_of_a_search_space_are_valid_options(side: str) -> None:
    parameters = space(side, 1e-3)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    sampled = [suggest(study.ask(), parameters) for _ in range(20)]
    for tuned in [first_values(parameters), *sampled]:
        options = options_of(side, BASE, tuned, "list.csv")
        assert {name: options.value(name) for name in tuned} == tuned


@pytest.mark.parametrize("side", SIDES)
def test_the_first_values_are_in_the_search_space(side: str) -> None:
    parameters = space(side, 1e-3)
    first = first_values(parameters)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # Optuna warns of a fixed value outside its distribution
        assert suggest(FixedTrial(first), parameters) == first  # type: ignore[arg-type]


@pytest.mark.parametrize("name", STRATEGIES)
def test_a_strategy_differs_from_the_baseline_in_its_own_options_only(name: str) -> None:
    first = first_values(space(name, 1e-3))
    values = options_of(name, BASE, first, "list.csv").to_json()
    baseline = TrainOptions.resolve(BASE).to_json()
    differing = {option for option in values if values[option] != baseline[option]}
    assert differing <= {*STRATEGIES[name].differences, *STRATEGIES[name].space, "lr", "target"}
    assert differing - {"lr"}, "the first trial must apply the strategy"


@pytest.mark.parametrize("lr", [1e-7, 3e-4, 5.0])
def test_the_range_of_the_learning_rate_includes_the_baselines(lr: float) -> None:
    for side in SIDES:
        parameter = space(side, lr)["lr"]
        if side == BASELINE or "lr" not in STRATEGIES[side].space:
            assert parameter.first == lr
            assert isinstance(parameter.range, FloatRange)
            assert parameter.range.low <= lr <= parameter.range.high


def test_every_strategy_has_a_paper_claim() -> None:
    assert set(STRATEGIES) <= set(PAPER_CLAIMS)


def test_only_strategies_that_adapt_get_a_target() -> None:
    for name, strategy in STRATEGIES.items():
        options = options_of(name, BASE, first_values(space(name, 1e-3)), "list.csv")
        assert (options.adaptation.target != "") == strategy.needs_target


@pytest.mark.parametrize("given", ["focal,magic", "focal,focal"])
def test_unknown_and_repeated_strategies_are_refused(given: str) -> None:
    with pytest.raises(UserError, match="--strategies"):
        SweepOptions.resolve({"strategies": given})


def test_all_strategies_are_compared_unless_some_are_given() -> None:
    assert SweepOptions.resolve({}).compared == tuple(STRATEGIES)
    assert SweepOptions.resolve({"strategies": "sgd,focal"}).compared == ("sgd", "focal")

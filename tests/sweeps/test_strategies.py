"""Every strategy is a valid difference from the baseline, for every value it may be tuned to."""

import numpy as np
import optuna
import pytest

from sweeps.options import SweepOptions
from sweeps.statistics.paper import CLAIMS
from sweeps.strategies import BASELINE, STRATEGIES, options_of, space
from synthdetect.runs.options import TrainOptions
from synthdetect.system.errors import UserError

BASE = {"arch": "resnet18", "lr": 1e-3, "epochs": 3}


def sampled(name: str, count: int = 20) -> list[dict[str, object]]:
    """The first values, and random ones."""
    parameters = space(name, 1e-3)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    distributions = {n: parameter.range for n, parameter in parameters.items()}
    drawn = [study.ask(distributions).params for _ in range(count)]
    return [{n: parameter.first for n, parameter in parameters.items()}, *drawn]


@pytest.mark.parametrize("name", [BASELINE, *STRATEGIES])
def test_every_value_of_a_space_makes_valid_options(name: str) -> None:
    for tuned in sampled(name):
        options = options_of(name, BASE, tuned, "list.csv")
        assert {n: getattr(options, n) for n in tuned} == tuned


@pytest.mark.parametrize("name", STRATEGIES)
def test_a_strategy_differs_from_the_baseline_in_its_own_options_alone(name: str) -> None:
    parameters = {n: parameter.first for n, parameter in space(name, 1e-3).items()}
    mine = options_of(name, BASE, parameters, "list.csv").to_json()
    baseline = TrainOptions.resolve(BASE).to_json()
    differing = {n for n in mine if mine[n] != baseline[n]}
    own = {*STRATEGIES[name].differences, *STRATEGIES[name].space, "lr", "target"}
    assert differing <= own
    assert differing - {"lr"}, "the first trial must be the strategy at work"


@pytest.mark.parametrize("name", [BASELINE, *STRATEGIES])
def test_the_learning_rate_is_tuned_on_every_side(name: str) -> None:
    parameter = space(name, 1e-3)["lr"]
    assert parameter.range._contains(parameter.range.to_internal_repr(parameter.first))  # type: ignore[no-untyped-call]
    if "lr" not in (STRATEGIES[name].space if name in STRATEGIES else {}):
        assert parameter.first == 1e-3


@pytest.mark.parametrize("lr", [1e-7, 3e-4, 5.0])
def test_the_range_of_the_learning_rate_includes_the_baselines(lr: float) -> None:
    parameter = space(BASELINE, lr)["lr"]
    low, high = parameter.range.low, parameter.range.high  # type: ignore[attr-defined]
    assert low <= lr <= high


def test_the_paper_says_something_of_every_strategy() -> None:
    assert set(STRATEGIES) <= set(CLAIMS)


def test_only_those_that_adapt_get_a_target() -> None:
    for name in STRATEGIES:
        first = {n: parameter.first for n, parameter in space(name, 1e-3).items()}
        has = options_of(name, BASE, first, "list.csv").target != ""
        assert has == STRATEGIES[name].needs_target


def test_unknown_and_repeated_strategies_are_refused() -> None:
    for given in ("focal,magic", "focal,focal"):
        with pytest.raises(UserError, match="--strategies"):
            SweepOptions.resolve({"strategies": given})
    assert SweepOptions.resolve({}).sides == tuple(STRATEGIES)
    assert SweepOptions.resolve({"strategies": "sgd,focal"}).sides == ("sgd", "focal")


def test_ranges_hold_their_first_values() -> None:
    for name in STRATEGIES:
        for n, parameter in space(name, 1e-3).items():
            value = parameter.range.to_internal_repr(parameter.first)
            assert parameter.range._contains(value), (name, n)  # type: ignore[no-untyped-call]
            assert np.isfinite(value)

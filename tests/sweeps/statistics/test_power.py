"""The power of a comparison against simulated comparisons, and plans that reach it."""

from dataclasses import replace

import numpy as np
import pytest

from benchmarks.verdicts import INTERACTION, PHOTOGRAPHS, TRAINING, Case, power, simulate_estimates
from benchmarks.verdicts import words as verdicts
from sweeps.statistics.power import (
    MOST_FITS,
    Components,
    Design,
    fits_needed,
    photographs_needed,
    pooled_freedom,
    power_of_equivalence,
    power_to_find,
    smallest_found,
)
from sweeps.statistics.verdicts import EQUIVALENT, RULES

COMPONENTS = Components(training=0.04, photographs=0.2)


def as_simulated(case: Case) -> Components:
    """What the changes of a simulated strategy vary by: twice the variance of a side."""
    training = 2 * (TRAINING**2 + INTERACTION**2 / case.photographs)
    photographs = 2 * (PHOTOGRAPHS**2 + INTERACTION**2 / case.fits)
    return Components(training**0.5, photographs**0.5)


@pytest.mark.parametrize("case", [Case(1, 5, 60), Case(3, 10, 60), Case(14, 10, 150)])
@pytest.mark.parametrize("wanted", [0.3, 0.8])
def test_the_power_is_that_of_simulated_comparisons(case: Case, wanted: float) -> None:
    """The simulated one is a little higher: part of the variance is counted twice in intervals."""
    design = Design(case.fits, case.photographs, case.strategies)
    effect = smallest_found(as_simulated(case), design, wanted)
    found = simulate_estimates(np.random.default_rng(0), 400, case)
    assert wanted - 0.08 < power(found, effect) < wanted + 0.15


def test_the_power_of_equivalence_is_that_of_simulated_comparisons() -> None:
    case = Case(1, 30, 2000)
    found = simulate_estimates(np.random.default_rng(0), 100, case)
    expected = power_of_equivalence(RULES.smallest_effect, as_simulated(case), Design(30, 2000, 1))
    share = np.mean([row[0] == EQUIVALENT for row in verdicts(found.values, found.parts)])
    assert share == pytest.approx(expected, abs=0.15)
    assert 0.2 < expected < 0.8


def test_the_power_without_an_effect_is_half_the_error_or_less() -> None:
    for strategies in (1, 14):
        design = Design(10, 60, strategies)
        assert power_to_find(0.0, COMPONENTS, design) <= 0.025 / strategies + 1e-9


def test_more_fits_photographs_or_fewer_strategies_find_smaller_effects() -> None:
    design = Design(10, 60, 14)
    found = smallest_found(COMPONENTS, design)
    assert power_to_find(found, COMPONENTS, design) == pytest.approx(0.8)
    for easier in ({"fits": 20}, {"photographs": 150}, {"strategies": 3}):
        assert smallest_found(COMPONENTS, replace(design, **easier)) < found


def test_the_needed_numbers_are_the_fewest_that_reach_the_aim() -> None:
    design = Design(10, 60, 3)

    def finds(design: Design) -> bool:
        return power_to_find(0.1, COMPONENTS, design) >= 0.8

    photographs = photographs_needed(finds, design)
    assert photographs is not None
    assert finds(replace(design, photographs=photographs))
    assert not finds(replace(design, photographs=photographs - 1))
    fits = fits_needed(finds, replace(design, photographs=2 * photographs))
    assert fits is not None
    assert fits < 10
    # Fits do not help against too few photographs.
    assert not finds(replace(design, fits=MOST_FITS, photographs=20))
    assert fits_needed(finds, replace(design, photographs=20)) is None


def test_a_single_strategy_has_the_freedom_of_its_own_pairs() -> None:
    assert pooled_freedom(1, 10) == 9
    assert 9 < pooled_freedom(3, 10) < pooled_freedom(14, 10) < 36

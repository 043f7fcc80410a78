"""Power: which change of AUC a comparison finds, and what it takes to find a given one.

A strategy's mean change varies by the photographs of the test and by the final fits (`Components`).
It is found if it lies outside the interval of `synthdetect.evaluation.estimates.Mean` at
Bonferroni's level; Holm's method, which verdicts use, finds at least as much. The estimated
variances vary as well, as multiples of chi-squared variables, and the power is the mean over them.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from scipy.optimize import brentq
from scipy.stats import chi2, norm

from synthdetect.evaluation.estimates import half_width
from synthdetect.system.arrays import FloatArray

WANTED = 0.8
"""Power that plans aim at."""

MOST_FITS, MOST_PHOTOGRAPHS = 1000, 1_000_000
"""Numbers above which a plan is called out of reach."""

_GRID = (np.arange(40) + 0.5) / 40  # probabilities of the chi-squared variables


@dataclass(frozen=True)
class Components:
    """What the change of one strategy varies by.

    Attributes:
        training: Standard deviation of the change between pairs of final fits, on fixed
            photographs.
        photographs: Standard deviation of the mean change between draws of m photographs, times
            the square root of m.
    """

    training: float
    photographs: float


@dataclass(frozen=True)
class Design:
    """The size of a comparison.

    Attributes:
        fits: Final fits of each side, at least 2.
        photographs: Independent photographs of the test, of the class that has fewer; at least 2.
        strategies: Strategies that are compared with the baseline.
        error: Familywise error of each kind of verdict.
    """

    fits: int
    photographs: int
    strategies: int
    error: float = 0.05


def pooled_freedom(strategies: int, fits: int) -> float:
    """Return the degrees of freedom of the variance between pairs of final fits.

    They are those that `sweeps.statistics.pooling` finds on average if all sides vary alike, so
    that the changes of two strategies, which share the baseline, correlate by 1/2.
    """
    freedom = fits - 1
    squares = strategies + strategies * (strategies - 1) / 4
    sampled = squares * (1 + 1 / freedom) + strategies**2 / freedom
    return max(float(freedom), freedom * strategies**2 / sampled)


def power_to_find(effect: float, components: Components, design: Design) -> float:
    """Return the probability that a strategy with this change of AUC is called better.

    Args:
        effect: The true change, at least 0. By symmetry, this is the probability that a strategy
            with the opposite change is called worse.
        components: What the change varies by.
        design: The size of the comparison.
    """
    deviation, half = _scale(components, design, design.error / design.strategies)
    return float(norm.sf((half - effect) / deviation).mean())


def power_of_equivalence(
    margin: float, components: Components, design: Design, effect: float = 0.0
) -> float:
    """Return the probability that a strategy is shown to be equivalent by two one-sided tests.

    Args:
        margin: Smallest effect of interest, above 0.
        components: What the change varies by.
        design: The size of the comparison.
        effect: The true change.
    """
    deviation, half = _scale(components, design, 2 * design.error / design.strategies)
    room = np.maximum(margin - half, 0.0)
    return float(
        (norm.cdf((room - effect) / deviation) - norm.cdf((-room - effect) / deviation)).mean()
    )


def _scale(components: Components, design: Design, error: float) -> tuple[float, FloatArray]:
    """Standard deviation of a mean change, and half widths over the estimated variances."""
    trained = components.training**2 / design.fits
    drawn = components.photographs**2 / design.photographs
    freedoms = pooled_freedom(design.strategies, design.fits), design.photographs - 1
    first, second = (chi2.ppf(_GRID, f) / f for f in (design.fits - 1, freedoms[1]))
    if design.strategies > 1:  # the others raise a variance that is estimated too small
        first = np.maximum(first, 1.0)
    parts = [(trained * first[:, None], freedoms[0]), (drawn * second, freedoms[1])]
    return float(np.sqrt(trained + drawn)), half_width(parts, error)


def smallest_found(components: Components, design: Design, power: float = WANTED) -> float:
    """Return the smallest change of AUC that is found with this power."""
    deviation, half = _scale(components, design, design.error / design.strategies)
    most = float(half.max() + 10 * deviation)
    return float(brentq(lambda effect: power_to_find(effect, components, design) - power, 0, most))


def fits_needed(reaches: Callable[[Design], bool], design: Design) -> int | None:
    """Return the fewest final fits of each side with which a design reaches its aim.

    Args:
        reaches: Whether a design reaches the aim; with more fits it does so more.
        design: The size of the comparison; its number of fits does not matter.

    Returns:
        The number; None if not even `MOST_FITS` suffice with these photographs.
    """
    return _least(lambda fits: reaches(replace(design, fits=fits)), MOST_FITS)


def photographs_needed(reaches: Callable[[Design], bool], design: Design) -> int | None:
    """Return the fewest photographs with which a design reaches its aim, as `fits_needed` does."""
    return _least(lambda count: reaches(replace(design, photographs=count)), MOST_PHOTOGRAPHS)


def _least(reaches: Callable[[int], bool], most: int) -> int | None:
    """Return the least number from 2 to `most` that reaches an aim, by bisection."""
    if not reaches(most):
        return None
    low, high = 1, most  # `high` reaches it; `low` does not
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if reaches(middle) else (middle, high)
    return high

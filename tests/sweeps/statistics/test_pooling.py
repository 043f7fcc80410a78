"""Moderated variances against hand calculations and simulations."""

import math

import numpy as np
import pytest
from scipy.optimize import brentq
from scipy.special import digamma, polygamma

from sweeps.statistics.pooling import moderated


def test_variances_that_differ_as_samples_do_are_raised_to_their_mean() -> None:
    """By hand: variances 2 and 3 of uncorrelated changes, each on two degrees of freedom.

    The pooled variance has 2 * (2 + 3)^2 / (2^2 + 3^2) degrees of freedom.
    """
    changes = np.array([[-math.sqrt(2), math.sqrt(2), 0.0], [1.0, 1.0, -2.0]])
    variances, freedom = moderated(changes)
    assert variances == pytest.approx([2.5, 3])
    assert freedom == pytest.approx([50 / 13, 50 / 13])


def test_the_same_changes_of_two_strategies_count_once() -> None:
    changes = np.array([[0.0, 1.0, 3.0, 7.0]] * 2)
    variances, freedom = moderated(changes)
    assert variances == pytest.approx([changes[0].var(ddof=1)] * 2)
    assert freedom == pytest.approx([3, 3])


def test_a_prior_by_hand() -> None:
    """Smyth's formulas for variances of 1, 1 and 1000 on three degrees of freedom.

    The changes are uncorrelated: they are contrasts of Hadamard's matrix of order four.
    """
    contrasts = np.array([[1, -1, 1, -1], [1, 1, -1, -1], [1, -1, -1, 1]]) * math.sqrt(3 / 4)
    sampled = np.array([1.0, 1.0, 1000.0])
    variances, freedom = moderated(contrasts * np.sqrt(sampled)[:, None])
    logs = np.log(sampled) - digamma(1.5) + math.log(1.5)
    spread = logs.var(ddof=1) - polygamma(1, 1.5)
    prior = brentq(lambda f: polygamma(1, f / 2) - spread, 0.01, 100)
    centre = math.exp(logs.mean() + digamma(prior / 2) - math.log(prior / 2))
    towards = (prior * centre + 3 * sampled) / (prior + 3)
    assert towards[2] < 1000, "it would be lowered"
    assert variances == pytest.approx([towards[0], towards[1], 1000])
    # The pooled variance has hardly more degrees of freedom than that of the third alone.
    assert freedom == pytest.approx([3 * sampled.sum() ** 2 / (sampled**2).sum()] * 3)


def test_changes_with_a_common_baseline_have_about_four_times_the_freedom_at_most() -> None:
    """tr(C)^2 / tr(C^2) is S / (1 + (S - 1) / 4) for correlations of 1/2, below 4 for any S."""
    rng = np.random.default_rng(0)
    sides = rng.normal(size=(200, 15, 10))
    variances, freedom = moderated(sides[:, 1:] - sides[:, :1])
    own = (sides[:, 1:] - sides[:, :1]).var(axis=-1, ddof=1)
    assert (variances >= own).all()
    assert variances.mean() == pytest.approx(2, rel=0.25)
    assert variances.std() < own.std()
    assert 9 < np.median(freedom) < 36


def test_one_strategy_keeps_its_variance() -> None:
    variances, freedom = moderated([[1.0, 2.0, 4.0]])
    assert (variances[0], freedom[0]) == (np.var([1, 2, 4], ddof=1), 2)


def test_lost_fits_and_missing_changes_are_left_out() -> None:
    rng = np.random.default_rng(0)
    changes = rng.normal(size=(4, 6))
    changes[1, 2:4] = np.nan
    changes[2, 1:] = np.nan
    changes[3] = np.nan
    variances, freedom = moderated(changes)
    assert np.isnan(variances).tolist() == [False, False, True, True]
    assert freedom[2:].tolist() == [0, 0]
    assert (freedom[:2] >= 3).all()


def test_constant_changes() -> None:
    variances, freedom = moderated(np.full((3, 4), 0.1))
    assert variances == pytest.approx([0, 0, 0])
    assert freedom.tolist() == [3, 3, 3]
    variances, _ = moderated([[0.0, 0.0, 0.0], [1.0, 2.0, 4.0], [1.0, 3.0, 4.0]])
    assert np.isfinite(variances).all()
    assert variances[0] < variances[1]

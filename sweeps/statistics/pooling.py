"""Variances between trainings that are estimated together, from the pairs of all strategies.

The change of one strategy varies from pair to pair of final fits, and a few pairs estimate this
variance badly. Strategies train alike in most respects, so each variance is moved towards that of
all of them: the moderated variance of Smyth 2004 (Stat. Appl. Genet. Mol. Biol. 3:3, as in limma).
How far it is moved, the prior degrees of freedom, is estimated from how much the variances differ:
where they differ no more than samples do, all pairs count; where they differ widely, each strategy
keeps its own variance.

A strategy that truly varies more than the others would get too small a variance, and its verdict
would err more often than stated. So no variance is lowered: the others raise one that is small, and
add their degrees of freedom.

Smyth's samples are independent. The strategies' changes are not, since all of them are changes from
the same baseline. Two things follow, both estimated from the covariance of the changes:

- The pooled variance has fewer degrees of freedom than all samples together: f (tr C)² / tr(C²),
  with C the covariance of the changes and f the degrees of freedom of one of them (Box 1954, Ann.
  Math. Stat. 25:290). No moderated variance has more than these. With C as it was sampled this is
  too few rather than too many.
- Sample variances of correlated changes resemble one another, even if the true ones differ. What
  they should differ by is reduced by the mean squared correlation.
"""

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.optimize import brentq
from scipy.special import digamma, polygamma

from synthdetect.system.arrays import FloatArray

_LEAST_SHARE = 1e-5
"""A variance counts as at least this share of the median, since zero has no logarithm (limma)."""

_MOST_FREEDOM = 1e6
"""Prior degrees of freedom above which the variances count as equal."""


def moderated(changes: npt.ArrayLike) -> tuple[FloatArray, FloatArray]:
    """Estimate the variance of each strategy's changes between pairs of final fits.

    Args:
        changes: Change of each strategy in each pair, shape (..., strategies, pairs); nan where a
            strategy lost a final fit.

    Returns:
        The variances and their degrees of freedom, each of shape (..., strategies). They are nan
        and 0 for a strategy with fewer than two pairs. A single strategy keeps its own variance.
    """
    changes = np.asarray(changes, dtype=np.float64)
    if changes.ndim > 2:
        each = [moderated(one) for one in changes.reshape(-1, *changes.shape[-2:])]
        shape = changes.shape[:-1]
        return tuple(np.reshape([one[i] for one in each], shape) for i in (0, 1))  # type: ignore[return-value]
    counts = (~np.isnan(changes)).sum(axis=1)
    freedom = np.maximum(counts - 1, 0).astype(np.float64)
    known = freedom >= 1
    variances = np.full(len(changes), np.nan)
    variances[known] = np.nanvar(changes[known], axis=1, ddof=1)
    if known.sum() > 1 and np.median(variances[known]) > 0:
        own = variances[known]
        towards, freedom[known] = _moderate(changes[known], own, freedom[known])
        variances[known] = np.maximum(own, towards)
    return variances, freedom


def _moderate(
    changes: FloatArray, variances: FloatArray, freedom: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """Move variances towards a common one; each has at least one degree of freedom."""
    strategies = len(variances)
    covariance = pd.DataFrame(changes.T).cov().fillna(0.0).to_numpy()  # of the common pairs
    pooled = freedom.mean() * np.trace(covariance) ** 2 / (covariance**2).sum()
    pooled = float(np.clip(pooled, freedom.max(), freedom.sum()))
    logs = np.log(np.maximum(variances, _LEAST_SHARE * np.median(variances)))
    logs += np.log(freedom / 2) - digamma(freedom / 2)
    by_chance = polygamma(1, freedom / 2).mean() * (1 - _mean_squared_correlation(covariance))
    prior_freedom = _inverse_trigamma(logs.var(ddof=1) - by_chance)
    if prior_freedom > _MOST_FREEDOM:
        common = np.average(variances, weights=freedom)
        return np.full(strategies, common), np.full(strategies, pooled)
    prior = np.exp(logs.mean() + digamma(prior_freedom / 2) - np.log(prior_freedom / 2))
    total = prior_freedom + freedom
    return (prior_freedom * prior + freedom * variances) / total, np.minimum(total, pooled)


def _mean_squared_correlation(covariance: FloatArray) -> float:
    """Return the mean squared correlation of two strategies; that with a constant counts as 0."""
    scale = np.outer(np.diag(covariance), np.diag(covariance))
    squares = np.divide(covariance**2, scale, out=np.zeros_like(scale), where=scale > 0)
    pairs = np.triu_indices(len(squares), k=1)
    return float(min(1.0, squares[pairs].mean()))


def _inverse_trigamma(value: float) -> float:
    """Return f with trigamma(f / 2) equal to the value; infinity if it is not positive."""
    if value <= polygamma(1, _MOST_FREEDOM / 2):
        return float("inf")
    found = brentq(lambda log: polygamma(1, np.exp(log) / 2) - value, -20.0, np.log(_MOST_FREEDOM))
    return float(np.exp(found))

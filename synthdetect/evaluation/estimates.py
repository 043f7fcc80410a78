"""Estimates of the difference between two ways to train, with confidence intervals and p-values.

The difference between two ways to train varies by chance for two reasons: another sample of
photographs would have been tested on, and other seeds or folds would have been trained with. `Mean`
covers both. All p-values are two-sided. A quantity that cannot be estimated is nan.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.optimize import elementwise
from scipy.special import stdtrit
from scipy.stats import binomtest, fisher_exact, t

from synthdetect.datasets.labels import REAL, SYNTHETIC
from synthdetect.datasets.splits import group_codes
from synthdetect.system.arrays import FloatArray

Interval = tuple[float, float]

LEAST_P = 1e-15
"""Lower bound of reported p-values; smaller ones are raised to it."""

_UNKNOWN = (float("nan"), float("nan"))


class Estimate(Protocol):
    """An estimated difference with its uncertainty."""

    @property
    def value(self) -> float:
        """The difference, on a scale on which 0 means no difference."""

    def interval(self, level: float) -> Interval:
        """Return a confidence interval of the true difference.

        Args:
            level: coverage, between 0 and 1.
        """

    def p_value(self) -> float:
        """Return the p-value of the hypothesis that there is no difference."""


@dataclass(frozen=True)
class Mean:
    """A mean difference whose variance is a sum of separately estimated components.

    With components v_i on f_i degrees of freedom, the half width of the interval is
    sqrt(sum of t(f_i)^2 v_i), where t(f) is the quantile of Student's t with f degrees of freedom
    (Banerjee 1960, Sankhya 22:357). The coverage is never below the level, however few trainings
    there are and whichever component dominates: the probability that a squared normal variable lies
    below x is concave in x, so at a mixture of half widths it is at least the mixture of the
    probabilities, each of which is the level. Satterthwaite's degrees of freedom have no such
    guarantee and fail with two or three trainings. Variation that depends on the photograph *and*
    the training is part of both components, which makes the interval conservative.

    Attributes:
        value: the mean difference.
        parts: variance of the mean and degrees of freedom of each component.
    """

    value: float
    parts: tuple[tuple[float, float], ...]

    @classmethod
    def of(
        cls, differences: FloatArray, folds: npt.ArrayLike, sources: int | None = None
    ) -> "Mean":
        """Estimate a mean difference from pairs of trainings that are tested on the same images.

        Args:
            differences: one row per pair of trainings, shape (pairs, 1 + replicates). Column 0 is
                the measured difference; the other columns are the difference in each bootstrap
                replicate of the test's sources, where all rows share the replicates.
            folds: fold of each pair, shape (pairs,). Pairs of one fold share their training data
                and count once; see `per_unit`.
            sources: number of independent sources in the test; see `independent_sources`. None if
                the quantity is not measured on test images; there are then no replicates.
        """
        differences = per_unit(differences, folds)
        parts = [(_variance(differences[:, 0]) / len(differences), len(differences) - 1)]
        if sources is not None:
            freedom = sources - 1
            unbiased = sources / freedom if freedom else np.nan
            parts.append((_variance(differences[:, 1:].mean(axis=0)) * unbiased, freedom))
        return cls(float(differences[:, 0].mean()), tuple(parts))

    def interval(self, level: float) -> Interval:
        half = float(half_width(self.parts, 1 - level))
        return self.value - half, self.value + half

    def p_value(self) -> float:
        return float(p_values(self.value, self.parts))

    def p_below(self, bound: float) -> float:
        """Return the one-sided p-value of the hypothesis that the difference is at least `bound`.

        A small p-value shows that the difference is below it.
        """
        return float(p_values_below(self.value, self.parts, bound))

    def p_above(self, bound: float) -> float:
        """Return the one-sided p-value of the hypothesis that the difference is at most `bound`.

        A small p-value shows that the difference is above it.
        """
        return float(p_values_below(-self.value, self.parts, -bound))


@dataclass(frozen=True)
class Spread:
    """The log ratio of two standard deviations over paired trainings.

    The test of Pitman and Morgan for two paired variances, and its inversion to an interval
    (Pitman 1939, Biometrika 31:9). Both are exact for normally distributed results.

    Attributes:
        value: log of the ratio of the standard deviations.
        correlation: correlation of the paired results.
        pairs: number of pairs of trainings; at least three are needed.
    """

    value: float
    correlation: float
    pairs: int

    @classmethod
    def of(cls, strategy: FloatArray, baseline: FloatArray) -> "Spread":
        """Estimate from paired results, both of shape (trainings,)."""
        deviations = np.sqrt([_variance(strategy), _variance(baseline)])
        if len(strategy) < 3 or not (deviations > 0).all():
            return cls(float("nan"), float("nan"), len(strategy))
        correlation = np.corrcoef(strategy, baseline)[0, 1]
        return cls(float(np.log(deviations[0] / deviations[1])), float(correlation), len(strategy))

    def interval(self, level: float) -> Interval:
        if np.isnan(self.value):
            return _UNKNOWN
        half = float(np.arcsinh(-stdtrit(self.pairs - 2, (1 - level) / 2) * self._scale()))
        return self.value - half, self.value + half

    def p_value(self) -> float:
        if np.isnan(self.value):
            return float("nan")
        if self.value == 0:
            return 1.0
        with np.errstate(divide="ignore"):
            statistic = np.divide(np.sinh(abs(self.value)), self._scale())
        return float(2 * t.sf(statistic, self.pairs - 2))

    def _scale(self) -> float:
        """Divisor that gives sinh(log ratio) Student's t with pairs - 2 degrees of freedom."""
        return float(np.sqrt(max(0.0, 1 - self.correlation**2) / (self.pairs - 2)))


@dataclass(frozen=True)
class Shares:
    """The difference of two proportions, with Fisher's exact test and Newcombe's interval.

    The interval is method 10 of Newcombe 1998, Statistics in Medicine 17:873.

    Attributes:
        strategy: count and total of the strategy.
        baseline: count and total of the baseline.
    """

    strategy: tuple[int, int]
    baseline: tuple[int, int]

    @property
    def value(self) -> float:
        if not (self.strategy[1] and self.baseline[1]):
            return float("nan")
        return self.strategy[0] / self.strategy[1] - self.baseline[0] / self.baseline[1]

    def interval(self, level: float) -> Interval:
        if np.isnan(self.value):
            return _UNKNOWN
        (down, up), (base_down, base_up) = (
            self._margins(share, level) for share in (self.strategy, self.baseline)
        )
        return (
            self.value - float(np.hypot(down, base_up)),
            self.value + float(np.hypot(up, base_down)),
        )

    def p_value(self) -> float:
        if np.isnan(self.value):
            return float("nan")
        rows = [[count, total - count] for count, total in (self.strategy, self.baseline)]
        return float(fisher_exact(rows).pvalue)

    @staticmethod
    def _margins(share: tuple[int, int], level: float) -> Interval:
        """Distances from a proportion to the bounds of its Wilson interval, below and above."""
        wilson = binomtest(*share).proportion_ci(level, method="wilson")
        return share[0] / share[1] - wilson.low, wilson.high - share[0] / share[1]


def half_width(
    parts: Iterable[tuple[npt.ArrayLike, npt.ArrayLike]], error: npt.ArrayLike
) -> FloatArray:
    """Compute half the width of confidence intervals as `Mean` describes them.

    Args:
        parts: Variance of the mean and degrees of freedom of each component.
        error: Probability that an interval does not hold the true value.

    Returns:
        Half widths, in the shape to which all of these broadcast; nan where a component has less
        than one degree of freedom.
    """
    total: FloatArray = np.zeros(())
    for variance, freedom in parts:
        known = np.where(np.asarray(freedom) >= 1, freedom, np.nan)
        total = total + np.asarray(variance) * stdtrit(known, np.asarray(error) / 2) ** 2
    return np.asarray(np.sqrt(total))


def p_values(
    values: npt.ArrayLike, parts: Sequence[tuple[npt.ArrayLike, npt.ArrayLike]]
) -> FloatArray:
    """Compute p-values of the hypotheses that there is no difference.

    They agree with the intervals: a p-value is the error at which the interval just reaches 0.

    Args:
        values: Mean differences.
        parts: As for `half_width`.

    Returns:
        Two-sided p-values, of the shape to which all of these broadcast; nan where a half width is.
    """
    some = half_width(parts, 0.5)
    distance, some = np.broadcast_arrays(np.abs(values), some)
    flat = [np.broadcast_to(x, distance.shape) for part in parts for x in part]

    def excess(log: FloatArray, distance: FloatArray, *parts: FloatArray) -> FloatArray:
        pairs = zip(parts[::2], parts[1::2], strict=True)
        return half_width(pairs, 10**log) - distance

    least = np.log10(LEAST_P)
    with np.errstate(invalid="ignore"):  # of half widths that are nan
        found = elementwise.find_root(excess, (least, 0.0), args=(distance, *flat))
        is_least = half_width(parts, LEAST_P) <= distance
    p = np.where(is_least, LEAST_P, 10.0 ** np.asarray(found.x))
    return np.where(np.isnan(some) | np.isnan(distance), np.nan, np.where(distance == 0, 1.0, p))


def p_values_below(
    values: npt.ArrayLike,
    parts: Sequence[tuple[npt.ArrayLike, npt.ArrayLike]],
    bound: npt.ArrayLike,
) -> FloatArray:
    """Compute one-sided p-values of the hypotheses that differences are at least `bound`.

    Args:
        values: Mean differences.
        parts: As for `half_width`.
        bound: The least difference under the hypothesis.
    """
    excess = np.asarray(values) - bound
    half = p_values(excess, parts) / 2
    return np.where(excess < 0, half, 1 - half)


def per_unit(values: FloatArray, folds: npt.ArrayLike) -> FloatArray:
    """Average the trainings of each fold, which leaves one row per independent training.

    Trainings on one fold share their data, so only their mean counts. With a single fold, each
    training (seed) counts.

    Args:
        values: one row per training, shape (trainings, any).
        folds: fold of each training, shape (trainings,).

    Returns:
        One row per fold, or `values` if there is one fold.
    """
    folds = np.asarray(folds)
    distinct = np.unique(folds)
    if len(distinct) < 2:
        return values
    return np.stack([values[folds == fold].mean(axis=0) for fold in distinct])


def independent_sources(table: pd.DataFrame) -> int:
    """Return the number of independent sources in the class of a table that has fewer of them."""
    groups = pd.Series(group_codes(table), index=table.index)
    return min(int(groups[table["label"] == label].nunique()) for label in (REAL, SYNTHETIC))


def holm(p_values: npt.ArrayLike) -> FloatArray:
    """Adjust p-values for multiple tests by the step-down method of Holm (1979).

    Args:
        p_values: shape (tests,). A nan stays nan, but counts as a test.
    """
    p = np.asarray(p_values, dtype=np.float64)
    order = np.argsort(p)  # nan sorts last
    raised = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1))
    result = np.empty_like(p)
    result[order] = np.minimum(raised, 1.0)
    return result


def _variance(values: FloatArray) -> float:
    """Return the unbiased variance of the values that are not nan; nan for fewer than two."""
    values = values[~np.isnan(values)]
    return float(values.var(ddof=1)) if len(values) > 1 else float("nan")

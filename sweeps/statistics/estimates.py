"""Estimates of a difference between two ways to train, each with its interval and p-value.

Two ways to train differ by chance for two reasons: other photographs would have been tested on, and
other folds and seeds trained with. `Mean` covers both. Throughout, a p-value is two-sided, and
whatever cannot be estimated is nan.
"""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt
from scipy.optimize import brentq
from scipy.special import stdtrit
from scipy.stats import binomtest, fisher_exact, t

from synthdetect.system.arrays import FloatArray

Interval = tuple[float, float]

LEAST_P = 1e-15
"""Smaller p-values are given as this one."""

_UNKNOWN = (float("nan"), float("nan"))


class Estimate(Protocol):
    """What every kind of estimate can say."""

    @property
    def value(self) -> float:
        """The difference, on a scale on which 0 is none."""

    def interval(self, level: float) -> Interval:
        """Bounds that hold the true difference in at least so large a share of cases."""

    def p_value(self) -> float:
        """How often so large a difference arises where there is none."""


@dataclass(frozen=True)
class Mean:
    """A mean difference whose variance is the sum of parts that are each estimated.

    With parts v_i on f_i degrees of freedom, the half width is sqrt(sum of t(f_i)^2 v_i), t being
    Student's quantile (Banerjee 1960, Sankhya 22:357). Its coverage is never below the level, with
    however few trainings and whichever part is the larger: the probability that a squared normal
    lies below x is concave in x, so that of the mixture is at least the mixture of the single
    ones, each of which is the level. (Satterthwaite's degrees of freedom promise no such thing, and
    fail with two or three trainings.) What differs by photograph *and* training is in both parts,
    which errs on the safe side.

    Attributes:
        value: the mean difference.
        parts: variance of the mean and degrees of freedom of each part.
    """

    value: float
    parts: tuple[tuple[float, int], ...]

    @classmethod
    def of(cls, changes: FloatArray, folds: npt.ArrayLike, sources: int | None = None) -> "Mean":
        """Estimate from paired trainings on one test.

        Args:
            changes: strategy minus baseline, a row a pair of trainings. The first column is as
                measured; the further ones are the same under a bootstrap over the test's sources,
                the same draw in all rows. Shape (trainings, 1 + replicates).
            folds: of each pair, shape (trainings,).
            sources: independent photographs of the test; None for what is not measured on a test,
                and then there is one column.
        """
        changes = per_unit(changes, folds)
        parts = [(_variance(changes[:, 0]) / len(changes), len(changes) - 1)]
        if sources is not None:
            freedom = sources - 1
            unbiased = sources / freedom if freedom else np.nan
            parts.append((_variance(changes[:, 1:].mean(axis=0)) * unbiased, freedom))
        return cls(float(changes[:, 0].mean()), tuple(parts))

    def interval(self, level: float) -> Interval:
        half = self._half_width(1 - level)
        return self.value - half, self.value + half

    def p_value(self) -> float:
        if np.isnan(self._half_width(0.5)) or np.isnan(self.value):
            return float("nan")
        if self.value == 0:
            return 1.0
        if self._half_width(LEAST_P) <= abs(self.value):
            return LEAST_P
        power = brentq(lambda x: self._half_width(10**x) - abs(self.value), np.log10(LEAST_P), 0)
        return float(10**power)

    def _half_width(self, error: float) -> float:
        if any(freedom < 1 for _, freedom in self.parts):
            return float("nan")
        return float(np.sqrt(sum(v * stdtrit(f, error / 2) ** 2 for v, f in self.parts)))


@dataclass(frozen=True)
class Spread:
    """How much more one side's results differ from training to training, in pairs of trainings.

    Pitman's and Morgan's test of two paired variances, and its inversion (Pitman 1939, Biometrika
    31:9); exact for normal results.

    Attributes:
        value: log of the ratio of standard deviations.
        correlation: of the two sides' results.
        pairs: of trainings; at least three are needed.
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
        """Of sinh(log ratio), which over this is Student's t with pairs - 2 degrees of freedom."""
        return float(np.sqrt(max(0.0, 1 - self.correlation**2) / (self.pairs - 2)))


@dataclass(frozen=True)
class Shares:
    """The difference of two shares: Fisher's exact test and Newcombe's interval.

    The interval is the tenth method of Newcombe 1998, Statistics in Medicine 17:873.

    Attributes:
        strategy: how many of how many.
        baseline: likewise.
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
            self._away(share, level) for share in (self.strategy, self.baseline)
        )
        return (
            self.value - float(np.hypot(down, base_up)),
            self.value + float(np.hypot(up, base_down)),
        )

    def p_value(self) -> float:
        if np.isnan(self.value):
            return float("nan")
        rows = [[count, of - count] for count, of in (self.strategy, self.baseline)]
        return float(fisher_exact(rows).pvalue)

    @staticmethod
    def _away(share: tuple[int, int], level: float) -> Interval:
        """How far Wilson's bounds lie below and above a share."""
        wilson = binomtest(*share).proportion_ci(level, method="wilson")
        return share[0] / share[1] - wilson.low, wilson.high - share[0] / share[1]


def per_unit(values: FloatArray, folds: npt.ArrayLike) -> FloatArray:
    """One row for each training that is independent of the others.

    Trainings on one fold share their data, so their mean counts once; if there is one fold only,
    each seed counts.

    Args:
        values: a row a training, shape (trainings, any).
        folds: of each training, shape (trainings,).
    """
    folds = np.asarray(folds)
    distinct = np.unique(folds)
    if len(distinct) < 2:
        return values
    return np.stack([values[folds == fold].mean(axis=0) for fold in distinct])


def holm(p_values: npt.ArrayLike) -> FloatArray:
    """P-values such that those up to alpha hold at alpha for all together (Holm 1979).

    Args:
        p_values: shape (tests,). One that is nan stays so, and counts as a test.
    """
    p = np.asarray(p_values, dtype=np.float64)
    order = np.argsort(p)  # nan comes last
    raised = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1))
    result = np.empty_like(p)
    result[order] = np.minimum(raised, 1.0)
    return result


def _variance(values: FloatArray) -> float:
    """Of what is defined, unbiased; nan of fewer than two."""
    values = values[~np.isnan(values)]
    return float(values.var(ddof=1)) if len(values) > 1 else float("nan")

"""Paired differences between detectors that scored the same images, with intervals over sources.

The estimate is the one that sweeps and regimes use for a single pair of trainings: the difference
in bootstrap replicates of the sources, which all detectors share, as `estimates.Mean`. It covers
the sampling of photographs. What another training of the same kind would change is no part of it:
the question is which of these detectors is better, not which way to train.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from synthdetect.datasets.labels import REAL
from synthdetect.datasets.splits import Codes, group_codes
from synthdetect.evaluation.estimates import Interval, Mean
from synthdetect.evaluation.intervals import LEVEL, effective_sources, interval, scale_of
from synthdetect.evaluation.metrics import (
    METRICS,
    bootstrap_weights,
    weighted_auc,
    weighted_metrics,
)
from synthdetect.evaluation.predictions import AT_THRESHOLD
from synthdetect.system.arrays import FloatArray

LOWER_IS_BETTER = frozenset({"eer", "nll", "nll_balanced", "brier", "ece", "ece_balanced"})
"""Metrics of which a lower value is better; of all others a higher one is."""

_REPLICATES = 1000


@dataclass(frozen=True)
class Paired:
    """A metric of two detectors on the same images.

    Attributes:
        reference: The metric of the reference.
        value: The metric of the other detector.
        estimate: The difference, `value` minus `reference`.
        exact: The effective number of sources if the difference is the same in all replicates
            although the detectors differ, which tells nothing about its uncertainty; else 0.
    """

    reference: float
    value: float
    estimate: Mean
    exact: float = 0.0

    @property
    def difference(self) -> float:
        """`value` minus `reference`."""
        return self.estimate.value

    def interval(self, level: float = LEVEL) -> Interval:
        """Return a confidence interval of the difference.

        If no replicate differs, as for two detectors without a mistake, the width is that of the
        exact binomial interval of the metric that counts each source as one observation.
        """
        if not self.exact:
            return self.estimate.interval(level)
        low, high = interval(np.full(3, self.value), self.exact, level=level)
        slack = max(self.value - low, high - self.value)
        return self.difference - slack, self.difference + slack


@dataclass(frozen=True)
class NonInferiority:
    """A test whether a detector is no worse than another by more than a margin.

    The hypothesis that it is worse by the margin or more is rejected at the level 5 % if the
    one-sided 95 % confidence bound of the paired difference lies inside the margin (Blackwelder
    1982, Control. Clin. Trials 3:345). Differences are gains here: positive ones are better, also
    of a metric whose lower values are.

    Attributes:
        metric: A name in `METRICS`.
        value: The metric of the detector.
        reference: The metric of the other detector.
        gain: The difference.
        low, high: Bounds of its two-sided 95 % confidence interval.
        bound: Its lower one-sided 95 % confidence bound.
        margin: By how much it may be worse.
    """

    metric: str
    value: float
    reference: float
    gain: float
    low: float
    high: float
    bound: float
    margin: float

    @classmethod
    def of(cls, metric: str, pair: Paired, margin: float) -> "NonInferiority":
        """Test a comparison."""
        two_sided, one_sided = pair.interval(LEVEL), pair.interval(2 * LEVEL - 1)
        gain, low, high, bound = pair.difference, *two_sided, one_sided[0]
        if metric in LOWER_IS_BETTER:
            gain, low, high, bound = -gain, -high, -low, -one_sided[1]
        return cls(metric, pair.value, pair.reference, gain, low, high, bound, margin)

    @property
    def is_shown(self) -> bool:
        """Whether it is shown to be no worse; never if there is no bound."""
        return self.bound > -self.margin or (self.bound == self.gain == 0)

    @property
    def is_worse(self) -> bool:
        """Whether it is shown to be worse, by whatever amount."""
        return self.high < 0


def paired_metrics(tables: Sequence[pd.DataFrame], *, seed: int) -> dict[str, list[Paired]]:
    """Compare all of `METRICS` of detectors with those of the first one.

    Metrics that depend on a threshold are computed from the answers in the column `predicted`,
    since each detector has a threshold of its own.

    Args:
        tables: Predictions tables of the same images in the same order; the sources are those of
            the first one.
        seed: Seed of the bootstrap.

    Returns:
        By metric a comparison for each table but the first.
    """
    labels, groups = tables[0]["label"].to_numpy(), group_codes(tables[0])
    scores = [table["logit"].to_numpy() for table in tables]
    answers = [np.where(table["predicted"] == REAL, -1.0, 1.0) for table in tables]
    chunks: list[dict[str, FloatArray]] = []
    for weights in _weights(groups, seed):
        rows = [
            {
                **weighted_metrics(labels, score, 0.5, weights),
                **_at_threshold(labels, answer, weights),
            }
            for score, answer in zip(scores, answers, strict=True)
        ]
        chunks.append({name: np.stack([row[name] for row in rows]) for name in METRICS})
    return {
        name: _pairs(
            np.concatenate([chunk[name] for chunk in chunks], axis=1),
            answers if name in AT_THRESHOLD else scores,
            labels, groups, is_share=scale_of(name) == "share",
        )
        for name in METRICS
    }  # fmt: skip


def paired_auc(
    tables: Sequence[pd.DataFrame], *, among: npt.NDArray[np.bool_] | None = None, seed: int
) -> list[Paired]:
    """Compare the AUC of detectors on some images with that of the first one.

    Args:
        tables: As for `paired_metrics`.
        among: Mask of the images, shape (images,), while the sources of all images are drawn; None
            means all images.
        seed: Seed of the bootstrap.
    """
    labels, groups = tables[0]["label"].to_numpy(), group_codes(tables[0])
    chosen = np.ones(len(labels), dtype=bool) if among is None else among
    scores = [table["logit"].to_numpy()[chosen] for table in tables]
    values = [
        np.stack([weighted_auc(labels[chosen], score, weights[:, chosen]) for score in scores])
        for weights in _weights(groups, seed)
    ]
    return _pairs(
        np.concatenate(values, axis=1), scores, labels[chosen], groups[chosen], is_share=True
    )


def _weights(groups: Codes, seed: int) -> Iterator[FloatArray]:
    """Yield weights of 1 for all images, then those of bootstrap replicates."""
    yield np.ones((1, len(groups)))
    yield from bootstrap_weights(groups, _REPLICATES, seed)


def _at_threshold(
    labels: npt.NDArray[np.int64], answers: FloatArray, weights: FloatArray
) -> dict[str, FloatArray]:
    found = weighted_metrics(labels, answers, 0.5, weights)
    return {name: found[name] for name in AT_THRESHOLD}


def _pairs(
    values: FloatArray, scores: Sequence[FloatArray], labels: npt.NDArray[np.int64], groups: Codes,
    *, is_share: bool,
) -> list[Paired]:  # fmt: skip
    """Compare each row of values, of shape (detectors, 1 + replicates), with the first one."""
    sources = min(len(np.unique(groups[labels == label])) for label in np.unique(labels))
    result = []
    for row, score in zip(values[1:], scores[1:], strict=True):
        # Rounded, so that differences that are equal are not told apart by rounding errors.
        both = Mean.of(np.round(row - values[0], 12)[None], [0], sources)
        estimate = Mean(both.value, both.parts[1:])  # the other part is that of several trainings
        variance = estimate.parts[0][0]
        is_stuck = is_share and variance == 0 and not np.array_equal(score, scores[0])
        exact = effective_sources(labels, groups) if is_stuck else 0.0
        result.append(Paired(float(values[0, 0]), float(row[0]), estimate, exact))
    return result

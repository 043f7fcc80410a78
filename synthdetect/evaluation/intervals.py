"""Confidence intervals of metrics by a jackknife over sources.

Images of one source (a photograph and what was made from it) are not independent, so whole sources
are left out, one at a time. A metric is thereby an array: its value on all images, then its value
without each source. Arrays of several metrics can be averaged or subtracted element by element, and
`interval` turns the result into an interval of the mean or of the difference. `python -m
benchmarks.intervals` measures the coverage. Bounds that cannot be estimated are nan: those of a
metric whose class has a single source, for example.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Literal

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.optimize import brentq
from scipy.special import expit, logit
from scipy.stats import beta, norm
from scipy.stats import t as student_t

from synthdetect.datasets.labels import REAL
from synthdetect.evaluation.metrics import (
    FPR_LEVELS,
    METRICS,
    calibration_gaps,
    metrics,
    weighted_auc,
    weighted_metrics,
)
from synthdetect.system.arrays import FloatArray

LEVEL = 0.95
"""Coverage of all intervals that are printed."""

Bounds = tuple[float, float]
Scale = Literal["share", "positive", "difference"]

_UNKNOWN: Bounds = (math.nan, math.nan)
_MOST_PARTS = 200  # values without a part of the sources; more of them change no interval visibly
_CHUNK = 4_000_000  # weights per chunk, 32 MB
_FALSE_POSITIVES = 3  # real images above the cut that the recall at a rate needs for an interval
_DRAWS = 2000  # of the sampling error of calibration gaps
_MARGIN = 1.1  # by which the jackknife's deviations of gaps are raised; see `calibration_interval`
_CALIBRATION = {"ece": False, "ece_balanced": True}  # whether both classes have equal weight


def metric_intervals(
    labels: npt.ArrayLike,
    logits: npt.ArrayLike,
    threshold: float,
    groups: npt.ArrayLike,
    *,
    level: float = LEVEL,
    seed: int = 0,
) -> pd.DataFrame:
    """Compute all of `METRICS` with confidence intervals over sources.

    The interval of a calibration error is that of `calibration_interval`; the others are those of
    `interval`. The recall at a false-positive rate has none if fewer than three real images may lie
    above the cut: so few do not show where the cut of all images lies.

    Args:
        labels: as in `metrics.metrics`.
        logits: as in `metrics.metrics`.
        threshold: as in `metrics.metrics`.
        groups: source of each image, shape (images,).
        level: coverage of the intervals.
        seed: seed of the partition of many sources, and of simulated calibration gaps.

    Returns:
        One row per metric: `metric`, `value`, `low`, `high`.
    """
    y, x, codes = np.asarray(labels), np.asarray(logits, dtype=np.float64), _codes(groups)
    everything = {"": np.ones(len(y), dtype=bool)}
    values = jackknife_metrics(y, x, threshold, codes, everything, seed=seed)[""]
    sources = effective_sources(y, codes)
    called_synthetic = expit(x) >= threshold
    of_called = effective_sources(y[called_synthetic] * 0, codes[called_synthetic])
    real = int((y == REAL).sum())
    undecided = {
        f"tpr_at_fpr_{level}" for level in FPR_LEVELS if level / 100 * real < _FALSE_POSITIVES
    }
    bounds = {}
    for name in METRICS:
        if name in _CALIBRATION:
            continue
        if name in undecided:
            bounds[name] = _UNKNOWN
            continue
        count = min(sources, of_called) if name == "precision" else sources
        bounds[name] = interval(values[name], count, scale=scale_of(name), level=level)
    for name, balanced in _CALIBRATION.items():
        gaps = np.vstack(
            [calibration_gaps(y, x, w, balanced=balanced) for w in _weights(codes, seed)]
        )
        bounds[name] = calibration_interval(gaps, sources, level=level, seed=seed)
    # Computed alone, since sums over many weightings at once are rounded otherwise.
    measured = metrics(y, x, threshold)
    rows = [(name, measured[name], *bounds[name]) for name in METRICS]
    return pd.DataFrame(rows, columns=["metric", "value", "low", "high"])


def auc_interval(
    labels: npt.ArrayLike, scores: npt.ArrayLike, groups: npt.ArrayLike, *, seed: int = 0
) -> tuple[float, float, float]:
    """Compute the AUC with its 95 % interval, which is that of `metric_intervals`.

    Args:
        labels: as in `metrics.metrics`; both classes must be present.
        scores: scores that are higher for synthetic images, shape (images,).
        groups: source of each image, shape (images,).
        seed: seed of the partition of many sources.

    Returns:
        The AUC and the bounds of its interval.
    """
    values = jackknife_auc(labels, scores, groups, seed=seed)
    return float(values[0]), *interval(values, effective_sources(labels, groups))


def interval(
    values: FloatArray, sources: float, *, scale: Scale = "share", level: float = LEVEL
) -> Bounds:
    """Compute a confidence interval from jackknife values.

    The interval is symmetric on the log-odds of a share, on the log of another positive number, and
    on the plain scale for a difference. Its half width is the jackknife's standard error times the
    quantile of Student's t, whose degrees of freedom f are estimated: with influences e_i of n
    sources, f = 2 (sum e_i^2)^2 / (sum e_i^4 - (sum e_i^2)^2 / n), which is Satterthwaite's rule
    for the estimated variance of sum e_i^2. Few photographs that hold most of the errors, or
    photographs of very unequal size, count as few degrees of freedom. There are at most `sources`
    - 1.

    The interval of a share is never wider than the exact binomial interval (Clopper and Pearson
    1934) that counts each source as one observation. A mean of images from these sources has no
    greater variance than that, nor has an AUC (van Dantzig 1951). It is the interval where the
    jackknife has none: at 0 and 1, and where all errors are in one source.

    Args:
        values: the value on all images, then the value without each source, shape (1 + sources,).
        sources: effective number of sources, from `effective_sources`.
        scale: `share` (0 to 1), `positive`, or `difference`.
        level: coverage.
    """
    if len(values) < 3 or sources < 2 or not np.isfinite(values).all():
        return _UNKNOWN
    values = np.round(values, 12)  # 1 and 0 are told from rounding errors beside them
    value = float(values[0])
    exact = _exact(value, sources, level) if scale == "share" else (-math.inf, math.inf)
    with np.errstate(divide="ignore", invalid="ignore"):
        if scale == "difference":
            moved = values
        else:
            moved = logit(values) if scale == "share" else np.log(values)
        influences = moved[1:] - moved[0]
    if not np.isfinite(influences).all() or (scale == "share" and not influences.any()):
        return exact if scale == "share" else _UNKNOWN
    deviation, freedom = _spread(influences, sources)
    half = float(student_t.ppf((1 + level) / 2, freedom)) * deviation
    bounds = (float(moved[0]) - half, float(moved[0]) + half)
    if scale == "difference":
        return bounds
    if scale == "positive":
        return math.exp(bounds[0]), math.exp(bounds[1])
    low, high = expit(bounds)
    return max(float(low), exact[0]), min(float(high), exact[1])


def calibration_interval(
    gaps: FloatArray, sources: float, *, level: float = LEVEL, seed: int = 0
) -> Bounds:
    """Compute a confidence interval of a calibration error from jackknife values of its bins' gaps.

    The interval is for the calibration error of infinitely many images with the same bins. The
    error of few images is larger, because chance opens a gap in every bin; the value can therefore
    lie above its interval. The interval contains every c times the value, from c = 0 on, that the
    value does not refute (a test inversion, Carpenter 1999, J. R. Stat. Soc. B 61:159): if the true
    gaps were c times the measured ones, with the measured sampling error in addition, the value
    would lie between the quantiles of the calibration error. Sampling errors are normal, with the
    jackknife's covariance, and are scaled by the ratio of Student's t, with the degrees of freedom
    of `interval`, to the normal quantile. Their variance grows with c above the best estimate, as
    that of the number of wrong answers in a bin does. They are raised by a tenth, because the
    measured gaps, which are larger than the true ones, make the error look more certain than it is:
    in the simulation of `benchmarks.intervals` its deviation is 5 to 10 % larger than estimated.

    Args:
        gaps: gaps on all images, then without each source, shape (1 + sources, bins); see
            `metrics.calibration_gaps`.
        sources: effective number of sources, from `effective_sources`.
        level: coverage.
        seed: seed of the simulated sampling errors.
    """
    if len(gaps) < 3 or sources < 2 or not np.isfinite(gaps).all():
        return _UNKNOWN
    measured, influences = gaps[0], gaps[1:] - gaps[0]
    value, count = float(np.abs(measured).sum()), len(influences)
    tail = (1 - level) / 2
    _, freedom = _spread(influences @ np.sign(measured), sources)
    small_sample = student_t.ppf(tail, freedom) / norm.ppf(tail)
    draws = np.random.default_rng(seed).normal(size=(_DRAWS, count))
    errors = _MARGIN * small_sample * math.sqrt((count - 1) / count) * (draws @ influences)

    middle = math.inf  # the factor whose median calibration error is the value, once it is known

    def excess(factor: float, share: float) -> float:
        variance = 1 + max(0.0, factor - middle)
        simulated = np.abs(factor * measured + math.sqrt(variance) * errors).sum(axis=1)
        return float(np.quantile(simulated, share)) - value

    def solve(share: float) -> float:
        if value == 0 or excess(0.0, share) >= 0:
            return 0.0
        most = 5 * (1 + (float(np.abs(errors).sum(axis=1).max()) / value) ** 2)
        return float(brentq(excess, 0.0, most, args=(share,), xtol=1e-6))

    low, middle = solve(1 - tail), solve(0.5)
    return value * low, value * solve(tail)


def jackknife_metrics(
    labels: npt.ArrayLike,
    logits: npt.ArrayLike,
    threshold: float,
    groups: npt.ArrayLike,
    subsets: Mapping[str, npt.NDArray[np.bool_]],
    *,
    seed: int = 0,
) -> dict[str, dict[str, FloatArray]]:
    """Compute all of `METRICS` of subsets of the images, on all sources and without each source.

    More than 200 sources are divided at random into 200 parts of equal numbers of sources, and a
    part is left out at a time (the delete-a-group jackknife, Kott 2001, J. Off. Stat. 17:521).

    Args:
        labels: as in `metrics.metrics`.
        logits: as in `metrics.metrics`.
        threshold: as in `metrics.metrics`.
        groups: source of each image, shape (images,).
        subsets: masks of non-empty subsets by name, each of shape (images,).
        seed: seed of the partition.

    Returns:
        Values by subset and metric, shape (1 + sources or parts,); the first is on all images.
    """
    y, x = np.asarray(labels), np.asarray(logits, dtype=np.float64)
    parts: dict[str, list[dict[str, FloatArray]]] = {name: [] for name in subsets}
    for weights in _weights(groups, seed):
        for name, chosen in subsets.items():
            some = weighted_metrics(y[chosen], x[chosen], threshold, weights[:, chosen])
            parts[name].append(some)
    return {
        name: {m: np.concatenate([chunk[m] for chunk in chunks]) for m in METRICS}
        for name, chunks in parts.items()
    }


def jackknife_auc(
    labels: npt.ArrayLike,
    scores: npt.ArrayLike,
    groups: npt.ArrayLike,
    *,
    among: npt.NDArray[np.bool_] | None = None,
    seed: int = 0,
) -> FloatArray:
    """Compute the AUC on all sources and without each source, as `jackknife_metrics` does.

    Different scores of the same images leave out the same sources, so that the interval of a
    difference of their AUCs is paired.

    Args:
        labels: as in `metrics.metrics`.
        scores: scores that are higher for synthetic images, shape (images,).
        groups: source of each image, shape (images,).
        among: mask of the images whose AUC is computed, shape (images,), while the sources of all
            images are left out; None means all images.
        seed: seed of the partition of many sources.

    Returns:
        Shape (1 + sources or parts,); nan where a class is missing.
    """
    y, x = np.asarray(labels), np.asarray(scores, dtype=np.float64)
    chosen = np.ones(len(y), dtype=bool) if among is None else among
    chunks = [weighted_auc(y[chosen], x[chosen], w[:, chosen]) for w in _weights(groups, seed)]
    return np.concatenate(chunks)


def lowest_interval(cells: Sequence[tuple[FloatArray, float]], *, level: float = LEVEL) -> Bounds:
    """Compute a confidence interval of the lowest of several shares.

    The lowest of several estimates is lower than the lowest true value, so its own interval would
    be too low. The lower bound is the lowest of those of the shares. The upper bound is the lowest
    of the shares' upper bounds, each at a level that holds for all of them at once (Bonferroni).

    Args:
        cells: jackknife values and effective number of sources of each share, as for `interval`.
        level: coverage.
    """
    low = min(interval(*cell, level=level)[0] for cell in cells)
    together = 1 - (1 - level) / len(cells)
    return low, min(interval(*cell, level=together)[1] for cell in cells)


def jackknife_share(
    hits: npt.NDArray[np.bool_], groups: npt.ArrayLike, *, seed: int = 0
) -> FloatArray:
    """Compute the share of images that are hits, on all sources and without each source.

    Args:
        hits: shape (images,).
        groups: source of each image, shape (images,).
        seed: seed of the partition of many sources.

    Returns:
        Shape (1 + sources or parts,).
    """
    return np.concatenate([w @ hits / w.sum(axis=1) for w in _weights(groups, seed)])


def effective_sources(labels: npt.ArrayLike, groups: npt.ArrayLike) -> float:
    """Return the effective number of sources in the class that has fewer of them.

    It is Kish's (sum n_i)^2 / sum n_i^2 for n_i images of source i: the number of sources of equal
    size in which a mean has the variance that it has in these, if the images of a source are equal.

    Args:
        labels: shape (images,). A class without images does not count.
        groups: source of each image, shape (images,).
    """
    y, codes = np.asarray(labels), _codes(groups)
    sizes = [np.bincount(codes[y == label]) for label in np.unique(y)]
    return min((float(n.sum() ** 2 / (n.astype(float) ** 2).sum()) for n in sizes), default=0.0)


def scale_of(metric: str) -> Scale:
    """Return the scale on which the interval of one of `METRICS` is computed."""
    return "positive" if metric.startswith("nll") else "share"


def _exact(value: float, sources: float, level: float) -> Bounds:
    """Return the interval of Clopper and Pearson for a share of a number of sources."""
    tail, hits = (1 - level) / 2, value * sources
    low = beta.ppf(tail, hits, sources - hits + 1) if hits > 0 else 0.0
    high = beta.ppf(1 - tail, hits + 1, sources - hits) if hits < sources else 1.0
    return float(low), float(high)


def _spread(influences: FloatArray, sources: float) -> tuple[float, float]:
    """Return the jackknife's standard error and its degrees of freedom; see `interval`."""
    count, total = len(influences), float((influences**2).sum())
    deviation = math.sqrt((count - 1) / count * total)
    variation = float((influences**4).sum()) - total**2 / count
    most = max(1.0, sources - 1)
    freedom = 2 * total**2 / variation if variation > 0 else most
    return deviation, min(freedom, most)


def _codes(groups: npt.ArrayLike) -> npt.NDArray[np.int64]:
    return np.asarray(pd.factorize(np.asarray(groups))[0], dtype=np.int64)


def _weights(groups: npt.ArrayLike, seed: int) -> Iterator[FloatArray]:
    """Yield weights of 1 for all images, then 0 for one source's images at a time, in chunks."""
    codes = _codes(groups)
    count = int(codes.max()) + 1
    if count > _MOST_PARTS:
        codes = np.random.default_rng(seed).permutation(count)[codes] % _MOST_PARTS
        count = _MOST_PARTS
    size = max(1, _CHUNK // len(codes))
    left_out = np.arange(-1, count)  # -1 is no source
    for begin in range(0, count + 1, size):
        rows = left_out[begin : begin + size]
        yield (codes[None, :] != rows[:, None]).astype(np.float64)

"""Every number the platform reports, as pure functions of labels and logits.

One implementation serves the value and its interval: each metric is computed for many weightings of
the images at once, and a bootstrap replicate is a weighting. Where a metric needs a class that is
missing it is nan, never 0.

Throughout, `labels` are 0 (real) or 1 (synthetic), `logits` are log-odds of "synthetic" (after
calibration, where there is any), probabilities are their sigmoid, and an image is called synthetic
if its probability is at least the threshold.
"""

import math
from collections.abc import Iterator, Mapping

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.special import expit, log_expit, logit

from synthdetect.system.arrays import FloatArray

ECE_BINS = 15
"""Equal-width bins of the probability in calibration errors."""

_FPR_LEVELS = (1, 5, 10)
_CHUNK = 4_000_000  # weights computed with at once: 32 MB

METRICS: dict[str, str] = {
    "auc": "area under the ROC curve, ties counted half (Mann-Whitney)",
    "average_precision": "sum of precision times the step in recall, from the highest score down",
    "accuracy": "share of right answers",
    "balanced_accuracy": "mean of real and fake accuracy",
    "precision": "share of synthetic among what is called synthetic; undefined if nothing is",
    "recall": "share of the synthetic that is called synthetic",
    "f1": "harmonic mean of precision and recall of the synthetic class",
    "f1_macro": "mean of the F1 of both classes",
    "real_accuracy": "share of the real that is called real",
    "fake_accuracy": "share of the synthetic that is called synthetic",
    "eer": "equal error rate: mean of false-positive and -negative rate where they are nearest",
    **{
        f"tpr_at_fpr_{level}": f"highest recall with at most {level} % of the real called synthetic"
        for level in _FPR_LEVELS
    },
    "nll": "negative log-likelihood in nats",
    "nll_balanced": "mean of the two classes' negative log-likelihoods (Cllr times ln 2)",
    "brier": "mean squared difference of probability and label",
    "ece": f"expected calibration error over {ECE_BINS} equal bins of the probability",
    "ece_balanced": "the same with both classes given equal weight",
}
"""Names and definitions of all metrics, in the order in which they are reported."""


def metrics(labels: npt.ArrayLike, logits: npt.ArrayLike, threshold: float) -> dict[str, float]:
    """All of `METRICS` at one threshold.

    Args:
        labels: shape (images,), 0 or 1.
        logits: shape (images,), finite.
        threshold: of the probability, 0 to 1.

    Raises:
        ValueError: no images, or a logit that is not finite.
    """
    values = weighted_metrics(labels, logits, threshold, np.ones((1, np.size(labels))))
    return {name: float(value[0]) for name, value in values.items()}


def weighted_metrics(
    labels: npt.ArrayLike, logits: npt.ArrayLike, threshold: float, weights: npt.ArrayLike
) -> dict[str, FloatArray]:
    """All of `METRICS` for many weightings of the images at once.

    Args:
        labels: as `metrics`.
        logits: as `metrics`.
        threshold: as `metrics`.
        weights: how often each image counts, shape (weightings, images), not negative; rows of
            `bootstrap_weights`, say.

    Returns:
        By metric, shape (weightings,); nan where a class that it needs has no weight.

    Raises:
        ValueError: as `metrics`; or weights of another shape, negative or not finite.
    """
    y, x = _checked(labels, logits)
    w = np.asarray(weights, dtype=np.float64)
    if w.ndim != 2 or w.shape[1] != len(y):
        raise ValueError(
            f"weights of shape {w.shape} for {len(y)} images; need (weightings, images)"
        )
    if not np.isfinite(w).all() or (w < 0).any():
        raise ValueError("weights must be finite and not negative")
    return _weighted(y, x, threshold, w)


def intervals(
    labels: npt.ArrayLike,
    logits: npt.ArrayLike,
    threshold: float,
    groups: npt.ArrayLike,
    *,
    replicates: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> pd.DataFrame:
    """All of `METRICS` with percentile-bootstrap intervals over groups of images.

    Images of one source are not independent, so whole sources are drawn with replacement.

    Args:
        labels: as `metrics`.
        logits: as `metrics`.
        threshold: as `metrics`.
        groups: the source of each image, shape (images,).
        replicates: bootstrap draws.
        level: coverage of the interval.
        seed: of the draws.

    Returns:
        A row a metric: `metric`, `value`, `low`, `high`. Replicates in which a metric is undefined
        (a class was not drawn) do not count; if all are, the bounds are nan.
    """
    value = metrics(labels, logits, threshold)
    everything = {"": np.ones(np.size(labels), dtype=bool)}
    draws = resampled(
        labels, logits, threshold, groups, everything, replicates=replicates, seed=seed
    )[""]
    rows = [(name, value[name], *interval(draws[name], level)) for name in METRICS]
    return pd.DataFrame(rows, columns=["metric", "value", "low", "high"])


def resampled(
    labels: npt.ArrayLike,
    logits: npt.ArrayLike,
    threshold: float,
    groups: npt.ArrayLike,
    subsets: Mapping[str, npt.NDArray[np.bool_]],
    *,
    replicates: int = 1000,
    seed: int = 0,
) -> dict[str, dict[str, FloatArray]]:
    """All of `METRICS` of subsets of the images, in bootstrap replicates that all subsets share.

    Args:
        labels: as `metrics`.
        logits: as `metrics`.
        threshold: as `metrics`.
        groups: the source of each image, shape (images,).
        subsets: by name, which images belong to each, shape (images,), not none.
        replicates: bootstrap draws.
        seed: of the draws.

    Returns:
        By subset and metric, shape (replicates,).
    """
    y, x = _checked(labels, logits)
    parts: dict[str, list[dict[str, FloatArray]]] = {name: [] for name in subsets}
    for weights in bootstrap_weights(groups, replicates, seed):
        for name, chosen in subsets.items():
            parts[name].append(_weighted(y[chosen], x[chosen], threshold, weights[:, chosen]))
    return {
        name: {m: np.concatenate([chunk[m] for chunk in chunks]) for m in METRICS}
        for name, chunks in parts.items()
    }


def bootstrap_auc(
    labels: npt.ArrayLike,
    logits: npt.ArrayLike,
    groups: npt.ArrayLike,
    *,
    among: npt.NDArray[np.bool_] | None = None,
    replicates: int = 1000,
    seed: int = 0,
) -> FloatArray:
    """The AUC in each of the replicates of `intervals`, whose arguments these are.

    The draws depend on groups, replicates and seed alone: other logits of the same images are
    resampled alike, and percentiles of the difference are a paired interval. With `among`, shape
    (images,), it is the AUC of these images while sources of all are drawn, as in `resampled`.

    Returns:
        Shape (replicates,); nan where a class was not drawn.
    """
    y, x = _checked(labels, logits)
    weights = bootstrap_weights(groups, replicates, seed)
    chosen = np.ones(len(y), dtype=bool) if among is None else among
    return np.concatenate([_Curve(y[chosen], x[chosen], w[:, chosen]).area() for w in weights])


def interval(draws: FloatArray, level: float = 0.95) -> tuple[float, float]:
    """The percentile interval of bootstrap draws; those that are nan do not count."""
    defined = draws[~np.isnan(draws)]
    if not len(defined):
        return math.nan, math.nan
    tail = 100 * (1 - level) / 2
    low, high = np.percentile(defined, [tail, 100 - tail])
    return float(low), float(high)


def auc_interval(
    labels: npt.ArrayLike,
    scores: npt.ArrayLike,
    groups: npt.ArrayLike,
    *,
    replicates: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> tuple[float, float, float]:
    """AUC, and its bounds as `intervals` has them, without the time that the other metrics take.

    Args:
        labels: as `metrics`, both classes present.
        scores: higher means synthetic; shape (images,).
        groups: as `intervals`.
        replicates: as `intervals`.
        level: as `intervals`.
        seed: as `intervals`.
    """
    value = _Curve(*_checked(labels, scores), np.ones((1, np.size(labels)))).area()[0]
    draws = bootstrap_auc(labels, scores, groups, replicates=replicates, seed=seed)
    return float(value), *interval(draws, level)


def bootstrap_weights(groups: npt.ArrayLike, replicates: int, seed: int) -> Iterator[FloatArray]:
    """How often each image is drawn when whole groups are, in chunks.

    Yields:
        Shape (some replicates, images); all chunks together hold `replicates` rows.
    """
    codes = pd.factorize(np.asarray(groups))[0]
    count = int(codes.max()) + 1
    rng = np.random.default_rng(seed)
    size = max(1, _CHUNK // len(codes))
    for begin in range(0, replicates, size):
        draws = rng.integers(count, size=(min(size, replicates - begin), count))
        times = np.stack([np.bincount(draw, minlength=count) for draw in draws])
        yield times[:, codes].astype(np.float64)


def epoch_metrics(prefix: str, labels: npt.ArrayLike, logits: npt.ArrayLike) -> dict[str, float]:
    """Loss, AUC, and accuracy and F1 at 0.5: what a training epoch reports."""
    y = np.asarray(labels) >= 0.5  # mixed targets count for the class they are nearer to
    values = metrics(y, logits, 0.5)
    names = {"loss": "nll", "auc": "auc", "accuracy": "accuracy", "f1": "f1"}
    return {f"{prefix}/{name}": values[source] for name, source in names.items()}


def choose_threshold(
    labels: npt.ArrayLike, logits: npt.ArrayLike, rule: str, max_fpr: float = 0.05
) -> float:
    """The probability from which on an image is called synthetic.

    Every cut between two neighbouring observed scores is tried, so the choice is exact; of equally
    good cuts the one nearest to 0.5 is taken, and it lies midway between the two scores' logits.

    Args:
        labels: of the images to choose on (validation), both classes present.
        logits: their scores.
        rule: `balanced_accuracy` or `f1` is maximised; `fpr` finds the most synthetic images
            with at most a share `max_fpr` of the real ones called so; `half` is 0.5.
        max_fpr: for that rule.

    Raises:
        ValueError: an unknown rule.
    """
    if rule == "half":
        return 0.5
    y, x = _checked(labels, logits)
    curve = _Curve(y, expit(x), np.ones((1, len(y))))
    tp, fp = curve.tp[0, 1:], curve.fp[0, 1:]  # cut just below each distinct score, falling
    if rule == "balanced_accuracy":
        quality = tp / curve.positives[0] - fp / curve.negatives[0]
    elif rule == "f1":
        quality = 2 * tp / (tp + fp + curve.positives[0])
    elif rule == "fpr":
        allowed = fp <= max_fpr * curve.negatives[0] + 1e-9
        quality = np.where(allowed, tp, -1.0)
        if not allowed.any():  # the highest score is a real image's: nothing may be called
            return float(np.nextafter(curve.scores[0], 2.0))
    else:
        raise ValueError(f"unknown threshold rule {rule!r}")
    upper, lower = curve.scores[:-1], curve.scores[1:]
    middle = expit((logit(upper) + logit(lower)) / 2)
    cuts = np.append(np.where(middle > lower, middle, upper), curve.scores[-1])
    best = np.flatnonzero(quality >= quality.max() - 1e-12)
    return float(cuts[best[np.abs(cuts[best] - 0.5).argmin()]])


def _checked(
    labels: npt.ArrayLike, logits: npt.ArrayLike
) -> tuple[npt.NDArray[np.bool_], FloatArray]:
    y, x = np.asarray(labels).astype(bool), np.asarray(logits, dtype=np.float64)
    if len(y) == 0 or len(y) != len(x):
        raise ValueError(f"{len(y)} labels and {len(x)} logits; need as many, and at least one")
    if not np.isfinite(x).all():
        raise ValueError(f"{int((~np.isfinite(x)).sum())} logits are not finite numbers")
    return y, x


class _Curve:
    """Counts of true and false positives as the cut falls, for many weightings at once.

    Attributes:
        scores: the distinct scores, falling, shape (cuts,).
        tp: weight of the synthetic at or above each cut, shape (weightings, 1 + cuts); the first
            column is the cut above everything.
        fp: likewise of the real.
    """

    def __init__(self, y: npt.NDArray[np.bool_], x: FloatArray, weights: FloatArray) -> None:
        order = np.argsort(-x, kind="stable")
        falling = x[order]
        starts = np.flatnonzero(np.append(True, falling[1:] != falling[:-1]))
        self.scores = falling[starts]
        w, is_synthetic = weights[:, order], y[order]
        self.tp = self._cumulated(w * is_synthetic, starts)
        self.fp = self._cumulated(w * ~is_synthetic, starts)
        self.positives, self.negatives = self.tp[:, -1], self.fp[:, -1]

    def area(self) -> FloatArray:
        """Under each ROC curve, shape (weightings,); nan without both classes."""
        with np.errstate(divide="ignore", invalid="ignore"):
            tpr = self.tp / self.positives[:, None]
            fpr = self.fp / self.negatives[:, None]
            areas = (np.diff(fpr, axis=1) * (tpr[:, 1:] + tpr[:, :-1]) / 2).sum(axis=1)
        return np.where((self.positives > 0) & (self.negatives > 0), areas, np.nan)

    @staticmethod
    def _cumulated(weights: FloatArray, starts: npt.NDArray[np.int64]) -> FloatArray:
        per_score = np.add.reduceat(weights, starts, axis=1)
        return np.pad(np.cumsum(per_score, axis=1), ((0, 0), (1, 0)))


def _weighted(
    y: npt.NDArray[np.bool_], x: FloatArray, threshold: float, weights: FloatArray
) -> dict[str, FloatArray]:
    """Every metric for every row of weights, shape (weightings, images)."""
    with np.errstate(divide="ignore", invalid="ignore"):
        curve = _Curve(y, x, weights)
        positives, negatives = curve.positives, curve.negatives
        both = np.where((positives > 0) & (negatives > 0), 1.0, np.nan)
        tpr, fpr = curve.tp / positives[:, None], curve.fp / negatives[:, None]
        called = curve.tp[:, 1:] + curve.fp[:, 1:]
        steps = np.diff(tpr, axis=1)
        precision_at = np.where(called > 0, curve.tp[:, 1:] / called, 0.0)

        p = expit(x)
        says_synthetic = p >= threshold
        tp = weights @ (says_synthetic & y)
        fp = weights @ (says_synthetic & ~y)
        fn, tn = positives - tp, negatives - fp
        total = positives + negatives
        recall, specificity = tp / positives, tn / negatives
        f1 = 2 * tp / (2 * tp + fp + fn)
        f1_real = 2 * tn / (2 * tn + fn + fp)

        loss = -np.where(y, log_expit(x), log_expit(-x))
        loss_fake, loss_real = weights @ (loss * y), weights @ (loss * ~y)
        nearest = np.abs(fpr - (1 - tpr)).argmin(axis=1)[:, None]
        at = np.take_along_axis
        values = {
            "auc": curve.area(),
            "average_precision": (precision_at * steps).sum(axis=1) * both,
            "accuracy": (tp + tn) / total,
            "balanced_accuracy": (recall + specificity) / 2,
            "precision": tp / (tp + fp) * both,
            "recall": recall,
            "f1": f1 * both,
            "f1_macro": (f1 + f1_real) / 2 * both,
            "real_accuracy": specificity,
            "fake_accuracy": recall,
            "eer": (at(fpr, nearest, 1) + 1 - at(tpr, nearest, 1))[:, 0] / 2 * both,
        }
        for level in _FPR_LEVELS:
            allowed = fpr <= level / 100 + 1e-12
            values[f"tpr_at_fpr_{level}"] = np.where(allowed, tpr, 0.0).max(axis=1) * both
        values |= {
            "nll": (loss_fake + loss_real) / total,
            "nll_balanced": (loss_fake / positives + loss_real / negatives) / 2,
            "brier": weights @ (p - y) ** 2 / total,
            "ece": _calibration_error(y, p, weights / total[:, None]),
            "ece_balanced": both
            * _calibration_error(
                y, p, weights * np.where(y, 0.5 / positives[:, None], 0.5 / negatives[:, None])
            ),
        }
    return {name: values[name] for name in METRICS}


def _calibration_error(y: npt.NDArray[np.bool_], p: FloatArray, shares: FloatArray) -> FloatArray:
    """Sum over bins of |mean probability - mean label| times the bin's share."""
    bins = np.minimum((p * ECE_BINS).astype(int), ECE_BINS - 1)
    member = np.zeros((len(p), ECE_BINS))
    member[np.arange(len(p)), bins] = p - y
    result: FloatArray = np.abs(shares @ member).sum(axis=1)
    return result

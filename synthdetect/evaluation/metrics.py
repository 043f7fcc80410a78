"""Classification metrics as functions of labels and logits.

Values, jackknife values (see `intervals`) and bootstrap replicates share one implementation: each
metric is computed for many weightings of the images at once. A metric that needs a class that is
missing is nan, never 0.

In all functions, `labels` are 0 (real) or 1 (synthetic), `logits` are log-odds of "synthetic",
calibrated if there is a calibration, and probabilities are their sigmoid. An image is classified as
synthetic if its probability is at least the threshold.
"""

from collections.abc import Iterator, Mapping

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.special import expit, log_expit, logit

from synthdetect.system.arrays import FloatArray

ECE_BINS = 15
"""Number of equal-width probability bins in calibration errors."""

FPR_LEVELS = (1, 5, 10)
"""False-positive rates, in per cent, at which the recall is computed."""

_CHUNK = 4_000_000  # weights per chunk, 32 MB

METRICS: dict[str, str] = {
    "auc": "area under the ROC curve; ties count one half (Mann-Whitney)",
    "average_precision": "sum over the precision-recall curve of precision times step in recall",
    "accuracy": "share of images that are classified correctly",
    "balanced_accuracy": "mean of real_accuracy and fake_accuracy",
    "precision": "share of synthetic images among those classified as synthetic",
    "recall": "share of synthetic images that are classified as synthetic",
    "f1": "harmonic mean of precision and recall; rises with the share of synthetic images",
    "f1_macro": "mean of the F1 scores of both classes",
    "real_accuracy": "share of real images that are classified as real",
    "fake_accuracy": "share of synthetic images that are classified as synthetic",
    "eer": "equal error rate: mean of the false-positive and -negative rate where they are closest",
    **{
        f"tpr_at_fpr_{level}": f"highest recall at a false-positive rate of at most {level} %"
        for level in FPR_LEVELS
    },
    "nll": "mean negative log-likelihood in nats",
    "nll_balanced": "mean of the classes' mean negative log-likelihoods (Cllr times ln 2)",
    "brier": "mean squared difference between probability and label",
    "ece": f"expected calibration error over {ECE_BINS} equal-width bins of the probability",
    "ece_balanced": "expected calibration error with equal weight for both classes",
}
"""Definitions of all metrics by name, in the order of reports."""


def metrics(labels: npt.ArrayLike, logits: npt.ArrayLike, threshold: float) -> dict[str, float]:
    """Compute all of `METRICS` at a threshold.

    Args:
        labels: shape (images,), 0 or 1.
        logits: shape (images,), finite.
        threshold: threshold of the probability, 0 to 1.

    Raises:
        ValueError: If there are no images, or a logit is not finite.
    """
    values = weighted_metrics(labels, logits, threshold, np.ones((1, np.size(labels))))
    return {name: float(value[0]) for name, value in values.items()}


def weighted_metrics(
    labels: npt.ArrayLike, logits: npt.ArrayLike, threshold: float, weights: npt.ArrayLike
) -> dict[str, FloatArray]:
    """Compute all of `METRICS` for many weightings of the images at once.

    Args:
        labels: as in `metrics`.
        logits: as in `metrics`.
        threshold: as in `metrics`.
        weights: non-negative weights, shape (weightings, images), such as how often each image is
            drawn in bootstrap replicates.

    Returns:
        Values by metric, shape (weightings,); nan where a required class has no weight.

    Raises:
        ValueError: As in `metrics`, or if the weights are negative, not finite, or of another
            shape.
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


def weighted_auc(
    labels: npt.ArrayLike, scores: npt.ArrayLike, weights: npt.ArrayLike
) -> FloatArray:
    """Compute the AUC for many weightings as `weighted_metrics` does, without other metrics.

    Args:
        labels: as in `metrics`.
        scores: scores that are higher for synthetic images, shape (images,).
        weights: as in `weighted_metrics`.
    """
    return _Curve(*_checked(labels, scores), np.asarray(weights, dtype=np.float64)).area()


def calibration_gaps(
    labels: npt.ArrayLike, logits: npt.ArrayLike, weights: npt.ArrayLike, *, balanced: bool
) -> FloatArray:
    """Compute the signed gaps of the bins, whose absolute values sum to the calibration error.

    Args:
        labels: as in `metrics`.
        logits: as in `metrics`.
        weights: as in `weighted_metrics`.
        balanced: whether both classes have equal weight, as in `ece_balanced`.

    Returns:
        Mean probability minus mean label of the images in each bin, times the bin's share of the
        weight, shape (weightings, `ECE_BINS`); nan where a required class has no weight.
    """
    y, x = _checked(labels, logits)
    with np.errstate(divide="ignore", invalid="ignore"):
        return _calibration_gaps(
            y, expit(x), np.asarray(weights, dtype=np.float64), balanced=balanced
        )


def bootstrap_metrics(
    labels: npt.ArrayLike,
    logits: npt.ArrayLike,
    threshold: float,
    groups: npt.ArrayLike,
    subsets: Mapping[str, npt.NDArray[np.bool_]],
    *,
    replicates: int = 1000,
    seed: int = 0,
) -> dict[str, dict[str, FloatArray]]:
    """Compute all of `METRICS` of subsets of the images in shared bootstrap replicates.

    Args:
        labels: as in `metrics`.
        logits: as in `metrics`.
        threshold: as in `metrics`.
        groups: source of each image, shape (images,).
        subsets: masks of non-empty subsets by name, each of shape (images,).
        replicates: number of bootstrap replicates.
        seed: seed of the bootstrap.

    Returns:
        Values by subset and metric, shape (replicates,).
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


def bootstrap_weights(groups: npt.ArrayLike, replicates: int, seed: int) -> Iterator[FloatArray]:
    """Draw whole groups of images with replacement, as many as there are, in each replicate.

    Yields:
        How often each image was drawn, in chunks of shape (some replicates, images) with
        `replicates` rows in total.
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
    """Compute the metrics of a training epoch: loss and AUC, accuracy and F1 at threshold 0.5.

    Args:
        prefix: prefix of the metrics' names, such as `val`.
        labels: labels or mixed targets, which are rounded, shape (images,).
        logits: shape (images,).
    """
    y = np.asarray(labels) >= 0.5
    values = metrics(y, logits, 0.5)
    names = {"loss": "nll", "auc": "auc", "accuracy": "accuracy", "f1": "f1"}
    return {f"{prefix}/{name}": values[source] for name, source in names.items()}


def choose_threshold(
    labels: npt.ArrayLike, logits: npt.ArrayLike, rule: str, max_fpr: float = 0.05
) -> float:
    """Choose the probability threshold that is optimal on labelled images.

    All cuts between neighbouring scores are tried, so the choice is exact. A cut lies midway
    between the logits of its two scores. Among equally good cuts, the one closest to 0.5 is chosen.

    Args:
        labels: labels of validation images; both classes must be present.
        logits: their logits.
        rule: `balanced_accuracy` or `f1` maximises that metric, `fpr` maximises recall at a
            false-positive rate of at most `max_fpr`, and `half` returns 0.5.
        max_fpr: highest false-positive rate of the rule `fpr`.

    Raises:
        ValueError: If the rule is unknown.
    """
    if rule == "half":
        return 0.5
    y, x = _checked(labels, logits)
    curve = _Curve(y, expit(x), np.ones((1, len(y))))
    tp, fp = curve.tp[0, 1:], curve.fp[0, 1:]  # at cuts just below each distinct score
    if rule == "balanced_accuracy":
        quality = tp / curve.positives[0] - fp / curve.negatives[0]
    elif rule == "f1":
        quality = 2 * tp / (tp + fp + curve.positives[0])
    elif rule == "fpr":
        allowed = fp <= max_fpr * curve.negatives[0] + 1e-9
        quality = np.where(allowed, tp, -1.0)
        if not allowed.any():  # the highest score is that of a real image
            return float(np.nextafter(curve.scores[0], 2.0))
    else:
        raise ValueError(f"unknown threshold rule {rule!r}")
    upper, lower = curve.scores[:-1], curve.scores[1:]
    with np.errstate(invalid="ignore"):  # between probabilities of 1 and 0; nan is replaced below
        middle = expit((logit(upper) + logit(lower)) / 2)
    cuts = np.append(np.where(middle > lower, middle, upper), curve.scores[-1])
    best = np.flatnonzero(quality >= quality.max() - 1e-12)
    return float(cuts[best[np.abs(cuts[best] - 0.5).argmin()]])


def _checked(
    labels: npt.ArrayLike, logits: npt.ArrayLike
) -> tuple[npt.NDArray[np.bool_], FloatArray]:
    y, x = np.asarray(labels).astype(bool), np.asarray(logits, dtype=np.float64)
    if len(y) == 0 or len(y) != len(x):
        raise ValueError(f"{len(y)} labels and {len(x)} logits; need equal numbers, at least one")
    if not np.isfinite(x).all():
        raise ValueError(f"{int((~np.isfinite(x)).sum())} logits are not finite numbers")
    return y, x


class _Curve:
    """True and false positives at all cuts, for many weightings at once.

    Attributes:
        scores: distinct scores in falling order, shape (cuts,).
        tp: weight of the synthetic images at or above each cut, shape (weightings, 1 + cuts); the
            first column is a cut above all scores.
        fp: weight of the real images at or above each cut, of the same shape.
        positives: total weight of the synthetic images, shape (weightings,).
        negatives: total weight of the real images, shape (weightings,).
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
        """Return the area under each ROC curve, shape (weightings,); nan without both classes."""
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
    """Compute all metrics for each row of weights, shape (weightings, images)."""
    with np.errstate(divide="ignore", invalid="ignore"):
        curve = _Curve(y, x, weights)
        positives, negatives = curve.positives, curve.negatives
        both = np.where((positives > 0) & (negatives > 0), 1.0, np.nan)
        tpr, fpr = curve.tp / positives[:, None], curve.fp / negatives[:, None]
        above = curve.tp[:, 1:] + curve.fp[:, 1:]
        steps = np.diff(tpr, axis=1)
        precision_at = np.where(above > 0, curve.tp[:, 1:] / above, 0.0)

        p = expit(x)
        predicted = p >= threshold
        tp = weights @ (predicted & y)
        fp = weights @ (predicted & ~y)
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
        for level in FPR_LEVELS:
            allowed = fpr <= level / 100 + 1e-12
            values[f"tpr_at_fpr_{level}"] = np.where(allowed, tpr, 0.0).max(axis=1) * both
        values |= {
            "nll": (loss_fake + loss_real) / total,
            "nll_balanced": (loss_fake / positives + loss_real / negatives) / 2,
            "brier": weights @ (p - y) ** 2 / total,
            "ece": np.abs(_calibration_gaps(y, p, weights)).sum(axis=1),
            "ece_balanced": both
            * np.abs(_calibration_gaps(y, p, weights, balanced=True)).sum(axis=1),
        }
    return {name: values[name] for name in METRICS}


def _calibration_gaps(
    y: npt.NDArray[np.bool_], p: FloatArray, weights: FloatArray, *, balanced: bool = False
) -> FloatArray:
    """Compute the gaps of `calibration_gaps` from probabilities."""
    bins = np.minimum((p * ECE_BINS).astype(int), ECE_BINS - 1)
    member = np.zeros((len(p), ECE_BINS))
    member[np.arange(len(p)), bins] = p - y
    if not balanced:
        return np.asarray(weights @ member / weights.sum(axis=1)[:, None])
    fake, real = (weights * y).sum(axis=1), (weights * ~y).sum(axis=1)
    of_fake, of_real = weights @ (member * y[:, None]), weights @ (member * ~y[:, None])
    return np.asarray(of_fake / fake[:, None] + of_real / real[:, None]) / 2

"""Measure how often the intervals of `synthdetect.evaluation.intervals` contain the truth.

    python -m benchmarks.intervals [--rounds 2000]

Each round simulates a test: photographs give real crops, and each crop gives three regenerated
images. Logits have normal effects of the photograph, of its separation, of the crop and of the
image. The ratio is the share of rounds in which the 95 % interval contains the true value, at the
true value where that share is least; its range is the 95 % confidence interval of the share. The
percentile bootstrap over photographs is applied to a quarter of the rounds for comparison.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.optimize import brentq
from scipy.special import expit, logit
from scipy.stats import binomtest, norm

from benchmarks.common import parser, report
from synthdetect.evaluation.intervals import calibration_interval, effective_sources, interval
from synthdetect.evaluation.metrics import ECE_BINS
from synthdetect.system.arrays import FloatArray
from synthdetect.system.console import console, table
from synthdetect.training.devices import resolve

REGENERATED = 3
"""Regenerated images of each real crop."""
PHOTOGRAPH, SEPARATION, CROP, IMAGE = 0.7, 0.7, 0.5, 0.6
"""Standard deviations of the effects; that of the separation acts on synthetic images only."""
REAL = float(np.sqrt(PHOTOGRAPH**2 + CROP**2 + IMAGE**2))
SYNTHETIC = float(np.hypot(REAL, SEPARATION))
"""Standard deviations of the logits of both classes."""
SHARE = REGENERATED / (1 + REGENERATED)
"""Share of synthetic images."""
TRUTHS = (0.55, 0.7, 0.82, 0.9, 0.96, 0.98)
CONFIDENCES = (1.0, 3.0)
"""Factors of calibrated log-odds: 1 is calibrated, 3 overconfident."""
WANTED = {27: 0.93, 100: 0.94}
"""Least coverage that is wanted, by the number of photographs."""
REPLICATES = 1000

Sizes = npt.NDArray[np.int64]
SIZES: dict[str, Callable[[np.random.Generator, int], Sizes]] = {
    "2 to 4 crops": lambda rng, count: rng.choice([2, 3, 4], size=count, p=[0.63, 0.22, 0.15]),
    "unequal crops": lambda rng, count: rng.geometric(0.4, size=count),
}
"""Real crops of each photograph: as in the sample's test split, and with a standard deviation of
three quarters of the mean."""


@dataclass(frozen=True)
class Detector:
    """A simulated detector.

    Attributes:
        separation: mean score of synthetic images; that of real ones is 0, and the cut is midway.
        confidence: factor of the calibrated log-odds.
    """

    separation: float
    confidence: float = 1.0

    def truth(self, metric: str) -> float:
        """Return the value of a metric on infinitely many images."""
        cut = self.separation / 2
        real, synthetic = norm.cdf(cut / REAL), norm.sf((cut - self.separation) / SYNTHETIC)
        if metric == "auc":
            return float(norm.cdf(self.separation / np.hypot(REAL, SYNTHETIC)))
        if metric == "accuracy":
            return float(SHARE * synthetic + (1 - SHARE) * real)
        if metric == "f1":
            wrong = SHARE * (1 - synthetic) + (1 - SHARE) * (1 - real)
            return float(2 * SHARE * synthetic / (2 * SHARE * synthetic + wrong))
        scores = np.linspace(-8 * REAL, self.separation + 8 * SYNTHETIC, 400_001)
        density = SHARE * norm.pdf(scores, self.separation, SYNTHETIC)
        density = density + (1 - SHARE) * norm.pdf(scores, 0, REAL)
        probability = self.probability(scores)
        gap = (probability - expit(self._log_odds(scores))) * density * (scores[1] - scores[0])
        return float(np.abs(np.bincount(_bins(probability), gap, ECE_BINS)).sum())

    def probability(self, scores: FloatArray) -> FloatArray:
        """Return the probability that the detector gives to scores."""
        return np.asarray(expit(self.confidence * self._log_odds(scores)))

    def _log_odds(self, scores: FloatArray) -> FloatArray:
        ratio = norm.logpdf(scores, self.separation, SYNTHETIC) - norm.logpdf(scores, 0, REAL)
        return np.asarray(ratio + logit(SHARE))


def with_truth(metric: str, value: float) -> Detector:
    """Return the detector with a true AUC, accuracy or F1."""
    return Detector(float(brentq(lambda s: Detector(s).truth(metric) - value, -4, 12)))


def simulate(
    rng: np.random.Generator, sizes: Sizes, separation: float
) -> tuple[Sizes, FloatArray, FloatArray]:
    """Simulate a test of photographs with numbers of crops.

    Returns:
        The photograph of each crop, shape (crops,); scores of the real crops, shape (crops,); and
        of the regenerated images, shape (crops, `REGENERATED`).
    """
    photograph = np.repeat(np.arange(len(sizes)), sizes)
    crops = len(photograph)
    shared = PHOTOGRAPH * rng.normal(size=len(sizes))[photograph] + CROP * rng.normal(size=crops)
    real = shared + IMAGE * rng.normal(size=crops)
    apart = separation + SEPARATION * rng.normal(size=len(sizes))[photograph]
    noise = IMAGE * rng.normal(size=(crops, REGENERATED))
    return photograph, real, (shared + apart)[:, None] + noise


def values_of(
    metric: str, detector: Detector, sizes: Sizes, test: tuple[Sizes, FloatArray, FloatArray],
    weights: FloatArray,
) -> FloatArray:  # fmt: skip
    """Compute a metric for weights of the photographs.

    The numbers are those of `weighted_metrics`, computed faster from sums by photograph. No two
    scores may be equal.

    Args:
        metric: `auc`, `accuracy`, `f1` or `ece`.
        detector: the detector.
        sizes: crops of each photograph.
        test: what `simulate` returned.
        weights: shape (weightings, photographs).

    Returns:
        Shape (weightings,), or for `ece` the gaps of shape (weightings, `ECE_BINS`).
    """
    photograph, real, synthetic = test
    starts, cut = np.cumsum(sizes) - sizes, detector.separation / 2
    reals, synthetics = weights @ sizes, REGENERATED * (weights @ sizes)
    if metric == "auc":
        above = (synthetic[None] > real[:, None, None]).sum(axis=2).astype(np.float64)
        pairs = np.add.reduceat(np.add.reduceat(above, starts, axis=0), starts, axis=1)
        return np.asarray(((weights @ pairs) * weights).sum(axis=1) / (reals * synthetics))
    if metric == "ece":
        by_photograph = np.zeros((len(sizes), ECE_BINS))
        for scores, label in ((real[:, None], 0), (synthetic, 1)):
            probability = detector.probability(scores)
            where = np.repeat(photograph, scores.shape[1])
            np.add.at(by_photograph, (where, _bins(probability).ravel()),
                      (probability - label).ravel())  # fmt: skip
        return np.asarray(weights @ by_photograph / (reals + synthetics)[:, None])
    found = weights @ np.add.reduceat((synthetic > cut).sum(axis=1), starts)
    false = weights @ np.add.reduceat((real > cut).astype(np.int64), starts)
    if metric == "accuracy":
        return np.asarray((found + reals - false) / (reals + synthetics))
    return np.asarray(2 * found / (found + false + synthetics))


def covered(
    rng: np.random.Generator, rounds: int, metric: str, detector: Detector, photographs: int,
    sizes_of: Callable[[np.random.Generator, int], Sizes],
) -> dict[str, float]:  # fmt: skip
    """Return the shares of simulated tests whose interval contains the truth, and mean widths."""
    truth = detector.truth(metric)
    hits = {"interval": 0, "percentile": 0}
    widths = dict.fromkeys(hits, 0.0)
    others = max(1, rounds // 4)
    left_out = np.vstack([np.ones(photographs), 1 - np.eye(photographs)])
    for number in range(rounds):
        sizes = sizes_of(rng, photographs)
        test = simulate(rng, sizes, detector.separation)
        found = {}
        values = values_of(metric, detector, sizes, test, left_out)
        sources = effective_sources(np.zeros(len(test[0])), test[0])
        compute = calibration_interval if metric == "ece" else interval
        found["interval"] = compute(values, sources)
        if number < others:
            chance = np.full(photographs, 1 / photographs)
            drawn = rng.multinomial(photographs, chance, size=REPLICATES).astype(np.float64)
            values = values_of(metric, detector, sizes, test, drawn)
            values = np.abs(values).sum(axis=1) if metric == "ece" else values
            low, high = np.quantile(values, [0.025, 0.975])
            found["percentile"] = float(low), float(high)
        for name, (low, high) in found.items():
            hits[name] += low <= truth <= high
            widths[name] += high - low
    counts = {"interval": rounds, "percentile": others}
    return {
        "truth": truth,
        **{f"{name}_covers": hits[name] / count for name, count in counts.items()},
        **{f"{name}_width": widths[name] / count for name, count in counts.items()},
    }


def _bins(probability: FloatArray) -> Sizes:
    return np.minimum((probability * ECE_BINS).astype(np.int64), ECE_BINS - 1)


def _detectors(metric: str) -> Mapping[str, Detector]:
    """Return the simulated detectors by name: with true values, for `ece` of the AUC."""
    if metric != "ece":
        return {f"{value:g}": with_truth(metric, value) for value in TRUTHS}
    return {
        f"AUC {value:g}, confidence {confidence:g}": Detector(
            with_truth("auc", value).separation, confidence
        )
        for value, confidence in product(TRUTHS[::2] + TRUTHS[-1:], CONFIDENCES)
    }


def main() -> None:
    given = parser("Measure the coverage of intervals.", rounds=2000).parse_args()
    cells = list(product(("auc", "accuracy", "f1", "ece"), WANTED, SIZES))
    if given.smoke:
        given.rounds, cells = 5, [("auc", 27, "2 to 4 crops")]
    rows: list[dict[str, Any]] = []
    for metric, photographs, sizes in cells:
        rng = np.random.default_rng([photographs, *metric.encode(), len(sizes)])
        by_truth = {
            name: covered(rng, given.rounds, metric, detector, photographs, SIZES[sizes])
            for name, detector in _detectors(metric).items()
        }
        least = min(cell["interval_covers"] for cell in by_truth.values())
        bounds = binomtest(round(least * given.rounds), given.rounds).proportion_ci()
        console.print(f"{metric}, {photographs} photographs of {sizes}: {least:.3f}")
        rows.append(
            {
                "key": f"{metric}_{photographs}_{sizes.replace(' ', '_')}",
                "what": f"{metric}, {photographs} photographs of {sizes}",
                "against": "the interval contains the truth",
                "ratio": least,
                "low": float(bounds.low),
                "high": float(bounds.high),
                "wanted": WANTED[photographs],
                "by_truth": by_truth,
            }
        )
    notes = (
        f"{given.rounds} simulated tests for each of several true values a row, of which the least "
        "covered is shown; the range is the 95 % confidence interval of the share"
    )
    report("intervals", "intervals", rows, resolve("auto", "auto", "auto"), given.output, notes)
    table(
        "coverage (mean width) of the interval, and of the percentile bootstrap",
        ["metric and photographs", "detector", "truth", "interval", "percentile bootstrap"],
        [
            [row["what"], name, f"{cell['truth']:.3f}",
             *(f"{cell[f'{method}_covers']:.3f} ({cell[f'{method}_width']:.3f})"
               for method in ("interval", "percentile"))]
            for row in rows
            for name, cell in row["by_truth"].items()
        ],
    )  # fmt: skip


if __name__ == "__main__":
    main()

"""Measure the bias of the pooled numbers of a cross-validation.

    python -m benchmarks.cross_fitting [--rounds 1000]

Each round simulates the out-of-fold logits of a cross-validation in which the networks of the folds
separate the classes equally well, but give logits of different scales, or with different offsets.
The ratio is 1 minus the absolute bias: the mean difference between a pooled number and its truth,
with the 95 % confidence interval of that mean. The truth of the AUC is that of each network. The
truth of the accuracy is that of the folds' networks on new photographs, at the chosen threshold.
The accuracy is also compared with that of the refit: of further networks of the same kind, with the
calibration and threshold of the refit. Nothing can be fitted to their own scale.

`raw` pools raw logits, fits one calibration and chooses the threshold on the images that it judges.
`cross-fitted` is what `cv` reports.
"""

from dataclasses import dataclass, replace
from itertools import product

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.special import expit, logit
from scipy.stats import norm

from benchmarks.common import parser, report
from synthdetect.evaluation.cross_fitting import cross_fit
from synthdetect.evaluation.decision import Decision, decide
from synthdetect.evaluation.metrics import metrics
from synthdetect.evaluation.options import CALIBRATIONS, DecisionOptions
from synthdetect.system.arrays import FloatArray
from synthdetect.training.devices import resolve

FOLDS, PHOTOGRAPHS = 5, 27
"""Number of folds, and of photographs in each, with a real and a synthetic image of each."""

_NETWORKS = 2000  # further networks whose accuracy is the truth


@dataclass(frozen=True)
class Setting:
    """What the networks of a simulated cross-validation are like.

    Attributes:
        auc: AUC of every network.
        scale: Standard deviation of the logarithm of the scale of the logits between networks.
        offset: That of the offset, in units of the standard deviation of the logits of a class.
    """

    auc: float
    scale: float = 0.0
    offset: float = 0.0

    @property
    def separation(self) -> float:
        """Distance of the means of the classes, in units of their standard deviation."""
        return float(np.sqrt(2) * norm.ppf(self.auc))

    def networks(self, rng: np.random.Generator, count: int) -> tuple[FloatArray, FloatArray]:
        """Draw the scales of networks and their offsets."""
        scales = np.exp(self.scale * rng.normal(size=count))
        return scales, scales * self.offset * rng.normal(size=count)


SETTINGS = {
    "other scales": Setting(0.877, scale=1.2),
    "weak detectors": Setting(0.6),
    "other offsets": Setting(0.877, scale=0.5, offset=0.5),
}

_ENOUGH = {
    ("other scales", "temperature"),
    ("weak detectors", "temperature"),
    ("other offsets", "platt"),
}
"""Settings, and calibrations that can express how the networks differ in them."""

METRICS = ("AUC", "accuracy", "accuracy of the refit")


@dataclass(frozen=True)
class Simulated:
    """A simulated cross-validation.

    Attributes:
        pool: The out-of-fold logits, as `cross_fit` takes them.
        scales: Scale of each fold's network.
        offsets: Offset of each fold's network.
    """

    pool: pd.DataFrame
    scales: FloatArray
    offsets: FloatArray


@dataclass(frozen=True)
class Pooled:
    """Numbers of a pool, and the decisions that they are about.

    Attributes:
        auc: The pooled AUC.
        accuracy: The pooled accuracy at the threshold.
        of_folds: The decision for each fold's network.
        of_refit: The decision for a further network.
    """

    auc: float
    accuracy: float
    of_folds: list[Decision]
    of_refit: Decision


def simulate(rng: np.random.Generator, setting: Setting) -> Simulated:
    """Simulate the out-of-fold logits of a cross-validation."""
    labels = np.tile([0, 1], FOLDS * PHOTOGRAPHS)
    photograph = np.repeat(np.arange(FOLDS * PHOTOGRAPHS), 2)
    fold = photograph // PHOTOGRAPHS
    common = rng.normal(size=FOLDS * PHOTOGRAPHS)[photograph]
    latent = 0.5 * common + np.sqrt(0.75) * rng.normal(size=len(labels))
    latent += setting.separation * (labels - 0.5)
    scales, offsets = setting.networks(rng, FOLDS)
    raw = scales[fold] * latent + offsets[fold]
    sources = photograph.astype(str)
    pool = pd.DataFrame({"label": labels, "raw_logit": raw, "fold": fold, "source_id": sources})
    return Simulated(pool, scales, offsets)


def raw(options: DecisionOptions, pool: pd.DataFrame, seed: int) -> Pooled:
    """Pool raw logits, and judge the threshold on the images that chose it."""
    decision = decide(options, pool["label"], pool["raw_logit"])
    found = metrics(pool["label"], decision.calibration(pool["raw_logit"]), decision.threshold)
    return Pooled(found["auc"], found["accuracy"], [decision] * FOLDS, decision)


def cross_fitted(options: DecisionOptions, pool: pd.DataFrame, seed: int) -> Pooled:
    """Pool as `cv` does."""
    fitted = cross_fit(options, pool, seed=seed)
    auc = metrics(pool["label"], fitted.logits, 0.5)["auc"]
    answers = expit(fitted.logits) >= fitted.thresholds
    fit = CALIBRATIONS[options.calibration].load()
    of_folds = [
        replace(fitted.decision, calibration=fit(own["label"], own["raw_logit"]))
        for _, own in pool.groupby("fold")
    ]
    accuracy = float((answers == pool["label"]).mean())
    return Pooled(auc, accuracy, of_folds, fitted.decision)


METHODS = {"raw": raw, "cross-fitted": cross_fitted}


def true_accuracy(
    decision: Decision, setting: Setting, scales: npt.ArrayLike, offsets: npt.ArrayLike
) -> float:
    """Return the mean accuracy of a decision on new photographs, over networks.

    The calibration of the decision must be a temperature or Platt's.
    """
    calibration = decision.calibration
    cut = (logit(decision.threshold) - calibration.offset) / calibration.slope
    latent = (cut - np.asarray(offsets)) / np.asarray(scales)
    half = setting.separation / 2
    return float(np.mean(norm.cdf(latent + half) + norm.sf(latent - half)) / 2)


def errors(count: int, setting: Setting, calibration: str, method: str) -> FloatArray:
    """Return the numbers of simulated cross-validations, and their truths.

    Returns:
        Shape (`METRICS`, 2, count): each number, then its truth.
    """
    rng, options = np.random.default_rng(1), DecisionOptions(calibration=calibration)
    further = setting.networks(np.random.default_rng(0), _NETWORKS)
    rows = []
    for turn in range(count):
        made = simulate(rng, setting)
        pooled = METHODS[method](options, made.pool, turn)
        networks = zip(pooled.of_folds, made.scales, made.offsets, strict=True)
        of_folds = [true_accuracy(one, setting, scale, offset) for one, scale, offset in networks]
        of_refit = true_accuracy(pooled.of_refit, setting, *further)
        rows.append(
            [
                (pooled.auc, setting.auc),
                (pooled.accuracy, float(np.mean(of_folds))),
                (pooled.accuracy, of_refit),
            ]
        )
    return np.moveaxis(np.array(rows), 0, -1)


def main() -> None:
    given = parser("Measure the bias of pooled numbers.", rounds=1000).parse_args()
    cells = sorted(_ENOUGH | {("other offsets", "temperature")})
    if given.smoke:
        given.rounds, cells = 3, cells[:1]
    rows = []
    for (name, calibration), method in product(cells, METHODS):
        found = errors(given.rounds, SETTINGS[name], calibration, method)
        for metric, (values, truths) in zip(METRICS, found, strict=True):
            bias = float((values - truths).mean())
            margin = 1.96 * float((values - truths).std(ddof=1)) / given.rounds**0.5
            is_wanted = method == "cross-fitted" and metric != METRICS[2]
            rows.append(
                {
                    "key": f"{metric}_{name}_{calibration}_{method}".replace(" ", "_"),
                    "what": f"{name}, {calibration}, {method}: {metric} {values.mean():.3f}",
                    "against": f"truth {truths.mean():.3f}",
                    "ratio": 1 - abs(bias),
                    "low": 1 - abs(bias) - margin,
                    "high": min(1.0, 1 - abs(bias) + margin),
                    "wanted": 0.98 if is_wanted and (name, calibration) in _ENOUGH else 0,
                    "bias": bias,
                }
            )
    notes = (
        f"{given.rounds} simulated cross-validations per row, of {FOLDS} folds with {PHOTOGRAPHS} "
        "photographs and two images of each; the ratio is 1 minus the absolute bias, the range its "
        "95 % confidence interval"
    )
    device = resolve("auto", "auto", "auto")
    report("cross_fitting", "cross_fitting", rows, device, given.output, notes)


if __name__ == "__main__":
    main()

"""How certain a threshold is that was chosen on few photographs."""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.special import expit

from synthdetect.datasets.splits import group_codes
from synthdetect.evaluation.metrics import bootstrap_weights, choose_threshold
from synthdetect.evaluation.options import DecisionOptions
from synthdetect.system.arrays import FloatArray

_REPLICATES = 200
_MAXIMISED = ("balanced_accuracy", "f1")  # rules that are named by the metric that they maximise


@dataclass(frozen=True)
class ThresholdUncertainty:
    """What a bootstrap over sources says of the choice of a threshold.

    Attributes:
        low: 2.5 % quantile of the thresholds that the replicates choose.
        high: 97.5 % quantile.
        loss: mean loss, on all images, of the metric that the rule maximises, if a replicate's
            threshold is used in place of the one chosen on all: about what is lost by having chosen
            it on so few. nan for rules that maximise none.
    """

    low: float
    high: float
    loss: float

    def describe(self) -> dict[str, float]:
        """Return the numbers that are known, by the names of metrics."""
        named = {"low": self.low, "high": self.high, "loss": self.loss}
        return {f"decision/threshold_{name}": x for name, x in named.items() if not math.isnan(x)}

    @property
    def words(self) -> str:
        """The range and the loss as a sentence."""
        text = f"chosen again on bootstrap samples: {self.low:.4f} to {self.high:.4f} (95 %)"
        return text if math.isnan(self.loss) else f"{text}, at a mean loss of {self.loss:.4f}"


def threshold_uncertainty(
    options: DecisionOptions, table: pd.DataFrame, *, seed: int
) -> ThresholdUncertainty | None:
    """Choose the threshold again in bootstrap replicates of the sources.

    The calibration stays as it is, so that all thresholds are on one scale. The best cut converges
    more slowly than a mean does, so the quantiles describe how far the choice varies, and are no
    confidence interval with a known coverage.

    Args:
        options: the rule by which the threshold was chosen.
        table: predictions table of the images that it was chosen on.
        seed: seed of the bootstrap.

    Returns:
        None if the rule `half` chose nothing, or no replicate has both classes.
    """
    rule = options.threshold_rule
    if rule == "half":
        return None
    y, x = table["label"].to_numpy(), table["logit"].to_numpy()
    chosen = []
    for weights in bootstrap_weights(group_codes(table), _REPLICATES, seed):
        for weight in weights.astype(np.int64):
            drawn = np.repeat(np.arange(len(y)), weight)
            if len(np.unique(y[drawn])) == 2:
                chosen.append(choose_threshold(y[drawn], x[drawn], rule, options.max_fpr))
    if not chosen:
        return None
    low, high = np.quantile(chosen, [0.025, 0.975])
    loss = math.nan
    if rule in _MAXIMISED:
        best, *reached = _quality(rule, y, x, [choose_threshold(y, x, rule), *chosen])
        loss = float(best - np.mean(reached))
    return ThresholdUncertainty(float(low), float(high), loss)


def _quality(
    rule: str, y: npt.NDArray[np.int64], x: FloatArray, thresholds: list[float]
) -> FloatArray:
    """Return the balanced accuracy or F1 at each threshold, as `metrics` computes them."""
    real, synthetic = np.sort(expit(x[y == 0])), np.sort(expit(x[y == 1]))
    specificity = np.searchsorted(real, thresholds) / len(real)
    recall = 1 - np.searchsorted(synthetic, thresholds) / len(synthetic)
    if rule == "balanced_accuracy":
        return np.asarray((recall + specificity) / 2)
    found, false = recall * len(synthetic), (1 - specificity) * len(real)
    return np.asarray(2 * found / (found + false + len(synthetic)))

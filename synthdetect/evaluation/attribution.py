"""Attribution: which generator made an image that is called synthetic, or "unknown".

A detector with attribution has a logit for each generator that it was trained on. The answer to an
image is `real` if it is not called synthetic. Else it is the generator with the largest
probability, or `unknown` if that probability is below a threshold.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax, softmax

from synthdetect.datasets.labels import CLASSES, REAL, SYNTHETIC
from synthdetect.datasets.splits import group_codes
from synthdetect.evaluation.intervals import effective_sources, interval, jackknife_share
from synthdetect.evaluation.slices import slice_values
from synthdetect.system.arrays import FloatArray

UNKNOWN = "unknown"
"""The answer to an image that is called synthetic and resembles no known generator enough."""

ATTRIBUTED = "attributed"
"""The column of a predictions table with the answers."""

KEPT = 0.95
"""Least share of the validation images of known generators that the threshold does not call
unknown."""

METRICS = {
    "accuracy": "share of the images of known generators whose generator is named",
    "unknown_recall": "share of the images of other named generators that are answered unknown",
}
"""Metrics of attribution. An image that is called real counts as a wrong answer in both."""

_TEMPERATURES = (0.05, 20.0)
_MOST_GROUPS = 8  # of real images, which else are one row


@dataclass(frozen=True)
class Attribution:
    """How logits of generators become answers, as chosen on validation images.

    Attributes:
        temperature: Divisor of the logits before the softmax.
        threshold: The lowest probability at which a generator is named, from 0 to 1.
    """

    temperature: float
    threshold: float

    def answer(
        self, generators: Sequence[str], labels: npt.ArrayLike, logits: FloatArray
    ) -> npt.NDArray[np.object_]:
        """Return the answers: "real", the name of a generator, or "unknown".

        Args:
            generators: The names of the known generators.
            labels: 1 where an image is called synthetic, else 0; of shape (images,).
            logits: Logits of the generators, of shape (images, generators).
        """
        largest = softmax(logits / self.temperature, axis=1).max(axis=1)
        names = np.array(generators, dtype=object)[logits.argmax(axis=1)]
        named = np.where(largest >= self.threshold, names, UNKNOWN)
        return np.where(np.asarray(labels) == SYNTHETIC, named, CLASSES[REAL])

    @property
    def sound(self) -> bool:
        """Whether both numbers are within their limits (for one read from a file)."""
        numbers = (self.temperature, self.threshold)
        low, high = _TEMPERATURES
        return (
            all(type(number) in (int, float) for number in numbers)
            and low <= self.temperature <= high
            and 0 <= self.threshold <= 1
        )

    def describe(self) -> dict[str, float]:
        """Return both numbers by name, for the record."""
        return {
            "attribution_temperature": self.temperature,
            "attribution_threshold": self.threshold,
        }


def choose_attribution(
    generators: Sequence[str], table: pd.DataFrame, logits: FloatArray
) -> Attribution | None:
    """Choose temperature and threshold on validation images.

    The temperature maximises the likelihood of the generators (Guo et al., "On Calibration of
    Modern Neural Networks", ICML 2017, section 4.2). Of n images, each true generator has the
    target (n + 1) / (n + 2) in place of 1 (Platt 1999, section 2.2), without which the temperature
    of images that are all told apart would tend to 0. The threshold is the highest one at which at
    least `KEPT` of the images are not called unknown.

    Args:
        generators: The names of the known generators, at least two.
        table: A row for each image, with `label` and `generator`; images of no known generator do
            not count.
        logits: Logits of the generators, of shape (images, generators).

    Returns:
        None if no image is of a known generator.
    """
    numbers = pd.Index(generators).get_indexer(table["generator"])
    known = (table["label"] == SYNTHETIC).to_numpy() & (numbers >= 0)
    if not known.any():
        return None
    true, own = numbers[known], logits[known]
    images, classes = own.shape
    rest = 1 / (images + 2)
    targets = np.full(own.shape, rest / (classes - 1))
    targets[np.arange(images), true] = 1 - rest

    def loss(log_temperature: float) -> float:
        return float(-(targets * log_softmax(own / np.exp(log_temperature), axis=1)).sum())

    low, high = np.log(_TEMPERATURES)
    temperature = float(np.exp(minimize_scalar(loss, bounds=(low, high), method="bounded").x))
    largest = softmax(own / temperature, axis=1).max(axis=1)
    return Attribution(temperature, float(np.quantile(largest, 1 - KEPT, method="lower")))


def attribution_table(
    table: pd.DataFrame, generators: Sequence[str], real_by: str = ""
) -> pd.DataFrame:
    """Count the answers to the images of each generator, and to real images.

    Args:
        table: Predictions table with the column `attributed`.
        generators: The names of the known generators.
        real_by: Column that divides the real images, as in `slices.slice_values`; they are one row
            without it, or if it has more than eight values.

    Returns:
        A row for each group of real images and for each generator: `images_of` (its name),
        `in_training` (yes or no; empty for real images), `images` (their number), and the number of
        each answer: `as_real`, `as_` and the name of each known generator, `as_unknown`.
    """
    real = (table["label"] == REAL).to_numpy()
    names = table["generator"].replace("", "(unnamed)").where(~real, CLASSES[REAL])
    if real_by:
        groups = slice_values(table, real_by, option="--real-by")
        if 1 < groups[real].nunique() <= _MOST_GROUPS:
            names = names.where(~real, CLASSES[REAL] + ": " + groups)
    answers = [CLASSES[REAL], *generators, UNKNOWN]
    rows = []
    for is_real in (True, False):
        for name in sorted(set(names[real == is_real])):
            own = table[(real == is_real) & (names == name)]
            counts = own[ATTRIBUTED].value_counts()
            rows.append(
                {
                    "images_of": name,
                    "in_training": "" if is_real else "yes" if name in generators else "no",
                    "images": len(own),
                    **{f"as_{answer}": int(counts.get(answer, 0)) for answer in answers},
                }
            )
    return pd.DataFrame(rows)


def attribution_metrics(
    table: pd.DataFrame, generators: Sequence[str], *, seed: int
) -> pd.DataFrame:
    """Compute `METRICS` of a predictions table with 95 % intervals over sources.

    Args:
        table: Predictions table with the column `attributed`.
        generators: The names of the known generators.
        seed: Seed of `intervals`.

    Returns:
        A row for each metric that has images: `metric`, `value`, `low`, `high`.
    """
    synthetic = (table["label"] == SYNTHETIC) & (table["generator"] != "")
    known = synthetic & table["generator"].isin(generators)
    right = {
        "accuracy": (known, table[ATTRIBUTED] == table["generator"]),
        "unknown_recall": (synthetic & ~known, table[ATTRIBUTED] == UNKNOWN),
    }
    groups, rows = group_codes(table), []
    for name, (images, hits) in right.items():
        of = images.to_numpy()
        if of.any():
            with np.errstate(invalid="ignore"):  # nothing is left without the only source
                values = jackknife_share(hits.to_numpy()[of], groups[of], seed=seed)
            sources = effective_sources(np.ones(of.sum()), groups[of])
            rows.append((name, float(values[0]), *interval(values, sources)))
    return pd.DataFrame(rows, columns=["metric", "value", "low", "high"])

"""Measure how often the verdicts of `sweeps.statistics.verdicts` err, and what they find.

    python -m benchmarks.verdicts [--rounds 1000]

Each round simulates a comparison of strategies with a baseline. Most are simulated at the level of
the estimates: what photographs, final fits and the interaction of both do to the AUC of each side
is drawn at random, and variances, p-values and verdicts are those of a sweep. Some are simulated
image by image, and their AUCs and bootstrap draws are computed from scores.

The ratio of a row is the share of rounds without a wrong verdict of the kind that errs most, which
must be at least 0.95; its range is the 95 % confidence interval of that share. The kinds are
`better` (wrong if the strategy is not better), `worse` (if it is not worse) and `equivalent` or
`not better` (if it differs or, for the latter, has grown by the smallest effect of interest). Each
kind is counted in four situations: all strategies equal the baseline, all differ by the smallest
effect upwards, or downwards, and a mixture of these. Other methods to estimate the variance are
applied to the same rounds. Rows with a common start show what happened while all final fits of a
side started from the same weights: 30 % of their variance was in all of them alike.

In further rounds one strategy is truly better by several effects. How often it is found is written
as a curve for each row, and drawn in `verdicts.png`.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure
from scipy.stats import binomtest, t

from benchmarks.common import parser, report
from sweeps.statistics.pooling import moderated
from sweeps.statistics.verdicts import (
    BETTER,
    EQUIVALENT,
    NOT_BETTER,
    RULES,
    WORSE,
    word_for,
)
from synthdetect.evaluation.estimates import holm, p_values, p_values_below
from synthdetect.system.arrays import FloatArray
from synthdetect.system.console import table
from synthdetect.training.devices import resolve

TRAINING, PHOTOGRAPHS, INTERACTION = 0.03, 0.06, 0.06
"""Standard deviations of what a final fit, a photograph of the test, and a photograph in a final
fit do to the AUC of one side; the AUC has the mean of the latter two over photographs."""

UNLIKE = 0.7
"""Logarithms of the strategies' standard deviations between trainings go from -0.7 to 0.7 where
strategies are unlike."""

COMMON = 0.3
"""Share of the variance between trainings that is in all final fits of a side, if they start from
the same weights."""

EFFECTS = (0.0, 0.01, 0.02, 0.03, 0.04, 0.06, 0.08, 0.1, 0.13, 0.16, 0.2, 0.25)
"""True changes of AUC in the curves of power."""

Parts = list[tuple[FloatArray, FloatArray]]
"""Variance of the mean and degrees of freedom, of the final fits and of the photographs."""


@dataclass(frozen=True)
class Case:
    """The size and the kind of simulated comparisons.

    Attributes:
        strategies: Strategies that are compared with the baseline.
        fits: Final fits of each side.
        photographs: Photographs of the test.
        unlike: Whether the strategies' results vary unlike each other.
        common: Share of the variance between trainings that is in all final fits of a side.
    """

    strategies: int
    fits: int
    photographs: int
    unlike: bool = False
    common: float = 0.0

    @property
    def text(self) -> str:
        """The case in words."""
        kind = "common start" if self.common else "unlike" if self.unlike else "alike"
        return (
            f"{self.strategies} strategies, {self.fits} final fits, {kind}; "
            f"{self.photographs} photographs"
        )


@dataclass(frozen=True)
class Rounds:
    """Estimates of simulated comparisons, where no strategy differs from the baseline.

    Attributes:
        changes: Change of each strategy in each pair, shape (rounds, strategies, fits).
        drawn: Estimated variance of the mean changes by photographs, shape (rounds, strategies).
        photographs: Photographs of the test.
    """

    changes: FloatArray
    drawn: FloatArray
    photographs: int

    @property
    def values(self) -> FloatArray:
        """Mean changes, shape (rounds, strategies)."""
        return np.asarray(self.changes.mean(axis=-1))

    @cached_property
    def parts(self) -> Parts:
        """The components of the variance of the mean changes, as a sweep estimates them."""
        return self._parts(*moderated(self.changes))

    @property
    def own_parts(self) -> Parts:
        """The same with the variance between its own pairs for each strategy."""
        fits = self.changes.shape[-1]
        return self._parts(self.changes.var(axis=-1, ddof=1), np.asarray(fits - 1.0))

    def _parts(self, variance: FloatArray, freedom: FloatArray) -> Parts:
        fits = self.changes.shape[-1]
        return [(variance / fits, freedom), (self.drawn, np.asarray(self.photographs - 1.0))]


# --- simulation of estimates


def simulate_estimates(rng: np.random.Generator, count: int, case: Case) -> Rounds:
    """Simulate comparisons at the level of the estimates.

    The AUC of a side in a final fit is the sum of what the fit does and of the mean over
    photographs of what each of them does to the side, and to the side in this fit. All are normal.
    """
    sides, fits, photographs = case.strategies + 1, case.fits, case.photographs
    deviation = np.full((sides, 1), TRAINING)
    if case.unlike:
        deviation[1:, 0] *= np.exp(np.linspace(-UNLIKE, UNLIKE, case.strategies))
    trained = np.sqrt(1 - case.common) * deviation * rng.normal(size=(count, sides, fits))
    trained += np.sqrt(case.common) * deviation * rng.normal(size=(count, sides, 1))
    changes, drawn = [], []
    for training in trained:
        of_photograph = PHOTOGRAPHS * rng.normal(size=(sides, 1, photographs))
        of_both = INTERACTION * rng.standard_normal((sides, fits, photographs), dtype=np.float32)
        results = of_photograph + of_both
        aucs, by_photograph = training + results.mean(axis=2), results.mean(axis=1)
        changes.append(aucs[1:] - aucs[:1])
        drawn.append((by_photograph[1:] - by_photograph[:1]).var(axis=-1, ddof=1) / photographs)
    return Rounds(np.stack(changes), np.stack(drawn), photographs)


# --- simulation of scores

SEPARATION = (2.0, 1.0)
"""Mean logit of the synthetic images of seen and unseen generators; that of real images is 0."""
SPREAD = 0.05
"""Standard deviation of the separation between final fits."""
GAIN = 1.0
"""Separation that a truly better strategy adds to the baseline's: about 0.16 of AUC on unseen
generators."""
REPLICATES = 200


def simulate(
    rng: np.random.Generator, trainings: int, sources: int, *, spread: float,
    gains: Sequence[float], images: int = 2,
) -> FloatArray:  # fmt: skip
    """Simulate the logits of a baseline and strategies on one test.

    A logit is a sum of normal effects: of the photograph and of the image (the same for all sides),
    of the photograph on a side, of the photograph on a training, and noise. Synthetic images have
    the separation in addition, which varies by fold and seed, equally for all sides, and by
    training.

    Args:
        rng: Random generator.
        trainings: Number of final fits of each side.
        sources: Number of photographs.
        spread: Standard deviation of the separation between trainings.
        gains: Separation that each strategy adds to the baseline's.
        images: Images of each kind from each photograph.

    Returns:
        Logits of shape (1 + strategies, trainings, kinds, sources, images). The kinds are real,
        seen and unseen.
    """
    sides = 1 + len(gains)
    logits = 0.7 * rng.normal(size=(1, 1, 1, sources, 1))
    logits = logits + 0.7 * rng.normal(size=(1, 1, 3, sources, images))
    logits = logits + 0.3 * rng.normal(size=(sides, 1, 3, sources, 1))
    logits = logits + 0.3 * rng.normal(size=(sides, trainings, 3, sources, 1))
    logits = logits + 0.5 * rng.normal(size=(sides, trainings, 3, sources, images))
    separation = (
        np.array(SEPARATION)
        + np.array([0.0, *gains])[:, None, None]
        + 0.2 * rng.normal(size=(1, trainings, 2))
        + spread * rng.normal(size=(sides, trainings, 2))
    )
    logits[:, :, 1:] += separation[..., None, None]
    return logits


def auc_draws(logits: FloatArray, draws: npt.NDArray[np.int64], part: int = 1) -> FloatArray:
    """Compute the AUC on seen (part 0) or unseen generators, as measured and under draws.

    The numbers are those of `weighted_metrics`, computed faster from counts of ordered pairs of
    images by pair of photographs. No two logits may be equal.

    Args:
        logits: Logits as `simulate` returns them.
        draws: How often each photograph is drawn, shape (replicates, sources).
        part: Part of the test.

    Returns:
        AUCs of shape (sides, trainings, 1 + replicates).
    """
    sides, trainings, _, sources, images = logits.shape
    weights = np.vstack([np.ones(sources), draws])
    pairs = (weights.sum(axis=1) * images) ** 2
    result = np.empty((sides, trainings, len(weights)))
    for side, training in np.ndindex(sides, trainings):
        real, synthetic = logits[side, training, 0], logits[side, training, 1 + part]
        above = synthetic[None, None] > real[:, :, None, None]
        by_source = above.sum(axis=(1, 3)).astype(np.float64)
        result[side, training] = ((weights @ by_source) * weights).sum(axis=1) / pairs
    return result


def simulate_scores(rng: np.random.Generator, count: int, case: Case, gain: float = 0.0) -> Rounds:
    """Simulate comparisons image by image; the first strategy has the gain.

    The mean change and its variances are estimated as by `estimates.Mean.of`.
    """
    sources = case.photographs
    gains = [gain, *[0.0] * (case.strategies - 1)]
    changes, drawn = [], []
    for _ in range(count):
        logits = simulate(rng, case.fits, sources, spread=SPREAD, gains=gains)
        draws = rng.multinomial(sources, np.full(sources, 1 / sources), size=REPLICATES)
        aucs = auc_draws(logits, draws)
        change = aucs[1:] - aucs[:1]
        changes.append(change[..., 0])
        means = change[..., 1:].mean(axis=1)
        drawn.append(means.var(axis=-1, ddof=1) * sources / (sources - 1))
    return Rounds(np.stack(changes), np.stack(drawn), sources)


# --- verdicts


def words(values: FloatArray, parts: Parts) -> list[list[str]]:
    """Return the verdict on each strategy in each round.

    Args:
        values: Mean changes, shape (rounds, strategies).
        parts: Their components of variance.
    """
    margin = RULES.smallest_effect
    below = p_values_below(values, parts, margin)
    above = p_values_below(-values, parts, margin)
    p = (p_values(values, parts), np.maximum(below, above), below)
    return [
        [
            word_for(*one, lost=0, error=RULES.error)
            for one in zip(value, *map(holm, adjusted), strict=True)
        ]
        for value, *adjusted in zip(values, *p, strict=True)
    ]


def situations(strategies: int) -> Iterator[FloatArray]:
    """The true changes of the strategies in which errors are counted."""
    margin = RULES.smallest_effect
    yield from (np.full(strategies, effect) for effect in (0.0, margin, -margin))
    yield np.resize([0.0, margin, -margin], strategies)


def wrong(word: str, effect: float) -> str:
    """Return the kind of error that a verdict is, given the true change; empty if it is none."""
    margin = RULES.smallest_effect
    if word == BETTER and effect <= 0:
        return BETTER
    if word == WORSE and effect >= 0:
        return WORSE
    is_wrong = (word == EQUIVALENT and abs(effect) >= margin) or (
        word == NOT_BETTER and effect >= margin
    )
    return EQUIVALENT if is_wrong else ""


def errors(found: Rounds) -> dict[str, float]:
    """Return the share of rounds with a wrong verdict, by kind, in the worst situation of each."""
    rates: Counter[str] = Counter()
    for effects in situations(found.values.shape[1]):
        verdicts = words(found.values + effects, found.parts)
        kinds = [
            {wrong(*pair) for pair in zip(row, effects, strict=True)} - {""} for row in verdicts
        ]
        for kind in (BETTER, WORSE, EQUIVALENT):
            rates[kind] = max(rates[kind], sum(kind in found for found in kinds))
        if not effects.any():
            rates["better or worse"] = sum(map(bool, kinds))
    return {kind: count / len(found.values) for kind, count in rates.items()}


METHODS: dict[str, Callable[[Rounds], FloatArray]] = {
    "own variance": lambda found: p_values(found.values, found.own_parts),
    "photographs alone": lambda found: p_values(found.values, found.parts[1:]),
    "Satterthwaite": lambda found: _by_satterthwaite(found),
}
"""Other methods to compute the p-values of no change, shape (rounds, strategies)."""


def _by_satterthwaite(found: Rounds) -> FloatArray:
    """Student's t with Satterthwaite's degrees of freedom for the sum of the variances."""
    parts = found.parts
    total = sum(variance for variance, _ in parts)
    freedom = total**2 / sum(variance**2 / freedom for variance, freedom in parts)
    return np.asarray(2 * t.sf(np.abs(found.values) / np.sqrt(total), freedom))


def false_differences(found: Rounds, method: str) -> float:
    """Return the share of rounds in which a method finds a difference where there is none."""
    p = METHODS[method](found)
    return float(np.mean([holm(row).min() <= RULES.error for row in p]))


def power(found: Rounds, effect: float) -> float:
    """Return the share of rounds in which the first strategy, truly better, is called so."""
    shift = np.zeros(found.values.shape[1])
    shift[0] = effect
    verdicts = words(found.values + shift, found.parts)
    return float(np.mean([row[0] == BETTER for row in verdicts]))


# --- the benchmark


def main() -> None:
    given = parser("Measure the errors of verdicts.", rounds=1000).parse_args()
    cases = [
        Case(*sizes, **kind)
        for kind in ({}, {"unlike": True}, {"common": COMMON})
        for sizes in product((3, 14), (5, 10, 20), (27, 60, 150))
    ]
    scored = [Case(3, 5, 27), Case(3, 10, 27), Case(14, 5, 27), Case(14, 10, 27)]
    if given.smoke:
        given.rounds, cases, scored = 5, [Case(3, 5, 27)], [Case(3, 5, 27)]
    rows = []
    for number, case in enumerate(cases):
        found = simulate_estimates(np.random.default_rng(number), given.rounds, case)
        row = _row(case, found, "")
        if not case.unlike and not case.common:
            row["power"] = {str(effect): power(found, effect) for effect in EFFECTS}
        rows.append(row)
    for case in scored:
        rng = np.random.default_rng([len(cases), case.strategies, case.fits])
        row = _row(case, simulate_scores(rng, max(given.rounds // 2, 5), case), "_scores")
        found = simulate_scores(rng, max(given.rounds // 4, 5), case, GAIN)
        row["power"] = {f"{found.values[:, 0].mean():.3f}": power(found, 0.0)}
        rows.append(row)
    notes = (
        f"{given.rounds} simulated comparisons per row (half as many on scores); the ratio is the "
        "share without a wrong verdict of the kind that errs most, and the range its 95 % "
        "confidence interval"
    )
    report("verdicts", "verdicts", rows, resolve("auto", "auto", "auto"), given.output, notes)
    if not given.smoke:
        draw(rows, given.output / "verdicts.png")
    kinds = (BETTER, WORSE, EQUIVALENT, "better or worse")
    table(
        "wrong verdicts by kind, and false differences by other methods",
        ["comparison", *kinds, *METHODS],
        [
            [row["what"], *(f"{row['errors'][kind]:.3f}" for kind in kinds),
             *(f"{row['false_differences'][method]:.3f}" for method in METHODS)]
            for row in rows
        ],
    )  # fmt: skip


def _row(case: Case, found: Rounds, suffix: str) -> dict[str, Any]:
    rates = errors(found)
    count = len(found.values)
    right = binomtest(round(count * (1 - max(rates.values()))), count)
    kind = "common" if case.common else "unlike" if case.unlike else "alike"
    low, high = right.proportion_ci()
    return {
        "key": f"no_wrong_verdict_{case.strategies}_{case.fits}_{case.photographs}_{kind}{suffix}",
        "what": case.text + (", on scores" if suffix else ""),
        "against": "no wrong verdict",
        "ratio": right.statistic,
        "low": float(low),
        "high": float(high),
        "wanted": 0.0 if case.common else 1 - RULES.error,
        "size": [case.strategies, case.fits, case.photographs],
        "errors": rates,
        "false_differences": {method: false_differences(found, method) for method in METHODS},
    }


def draw(rows: list[dict[str, Any]], file: Path) -> None:
    """Draw the curves of power of the rows that have one, in a panel for each number of strategies.

    Colours are the numbers of photographs, and lines the numbers of final fits.
    """
    curves = [row for row in rows if len(row.get("power", ())) > 1]
    numbers = sorted({row["size"][0] for row in curves})
    figure = Figure(figsize=(9, 3.8), layout="constrained")
    panels = figure.subplots(1, len(numbers), sharey=True, squeeze=False)[0]
    lines = {5: ":", 10: "-", 20: "--"}
    colours = {27: "#b2182b", 60: "#777777", 150: "#2166ac"}
    for axes, number in zip(panels, numbers, strict=True):
        for row in curves:
            strategies, fits, photographs = row["size"]
            if strategies == number:
                axes.plot(
                    [float(effect) for effect in row["power"]], list(row["power"].values()),
                    lines[fits], color=colours[photographs],
                    label=f"{photographs} photographs, {fits} fits",
                )  # fmt: skip
        axes.axhline(0.8, color="#bbbbbb", linewidth=0.8)
        axes.set_title(f"{number} strategies", fontsize=10)
        axes.set_xlabel("true change of AUC")
    panels[0].set_ylabel("share called better")
    panels[-1].legend(fontsize=7)
    figure.savefig(file, dpi=110)


if __name__ == "__main__":
    main()

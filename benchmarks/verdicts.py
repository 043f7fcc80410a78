"""Measure how often the rules of `sweeps.statistics.verdicts` err, and what they detect.

    python -m benchmarks.verdicts [--rounds 1000]

Each round simulates a comparison of three strategies with a baseline that they equal but for
chance: the photographs of the test, the final fits, and the interaction of both. The ratio is the
share of rounds in which no strategy is called better or worse, which must be at least 0.95; its
range is the 95 % confidence interval of that share. Other methods to compute the p-values are
applied to the same rounds. Further rounds, in which one strategy is truly better, show how often
the rules detect it.
"""

from collections.abc import Callable, Sequence
from itertools import product

import numpy as np
import numpy.typing as npt
from scipy.stats import binomtest, norm, t

from benchmarks.common import parser, report
from sweeps.statistics.verdicts import BETTER, NO_EVIDENCE, RULES, word_for
from synthdetect.evaluation.estimates import Mean, holm
from synthdetect.system.arrays import FloatArray
from synthdetect.system.console import table
from synthdetect.training.devices import resolve

STRATEGIES = 3
REPLICATES = 200
SEPARATION = (2.0, 1.0)
"""Mean logit of the synthetic images of seen and unseen generators; that of real images is 0."""
SPREADS = {"alike": 0.05, "unlike": 0.25}
"""Standard deviation of the separation between final fits."""
GAIN = 1.0
"""Separation that a truly better strategy adds to the baseline's."""


def simulate(
    rng: np.random.Generator, trainings: int, sources: int, *, spread: float,
    gains: Sequence[float] = (0.0,) * STRATEGIES, images: int = 2,
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


def auc_draws(logits: FloatArray, draws: npt.NDArray[np.int64]) -> FloatArray:
    """Compute the AUC on seen and unseen generators, as measured and under draws of photographs.

    The numbers are those of `weighted_metrics`, computed faster from counts of ordered pairs of
    images by pair of photographs. No two logits may be equal.

    Args:
        logits: Logits as `simulate` returns them.
        draws: How often each photograph is drawn, shape (replicates, sources).

    Returns:
        AUCs of shape (sides, trainings, 2, 1 + replicates).
    """
    sides, trainings, _, sources, images = logits.shape
    weights = np.vstack([np.ones(sources), draws])
    pairs = (weights.sum(axis=1) * images) ** 2
    result = np.empty((sides, trainings, 2, len(weights)))
    for side, training, part in np.ndindex(sides, trainings, 2):
        real, synthetic = logits[side, training, 0], logits[side, training, 1 + part]
        above = synthetic[None, None] > real[:, :, None, None]
        by_source = above.sum(axis=(1, 3)).astype(np.float64)
        result[side, training, part] = ((weights @ by_source) * weights).sum(axis=1) / pairs
    return result


def estimates(aucs: FloatArray, sources: int) -> list[list[Mean]]:
    """Estimate the changes of each strategy's two AUCs; each training has a fold of its own."""
    changes = aucs[1:] - aucs[:1]
    folds = np.arange(aucs.shape[1])
    return [[Mean.of(one[:, part], folds, sources) for part in (0, 1)] for one in changes]


def words(values: FloatArray, p_values: FloatArray) -> list[str]:
    """Return each strategy's verdict from differences and p-values of shape (strategies, 2)."""
    adjusted = holm(p_values.ravel()).reshape(p_values.shape)
    return [
        word_for(zip(value, p, strict=True), lost=0, error=RULES.error)
        for value, p in zip(values, adjusted, strict=True)
    ]


def _by_rule(means: list[list[Mean]], aucs: FloatArray) -> FloatArray:
    return np.array([[mean.p_value() for mean in row] for row in means])


def _by_photographs(means: list[list[Mean]], aucs: FloatArray) -> FloatArray:
    """Bootstrap of the photographs alone, as if other trainings had the same results."""
    ratios = [[abs(mean.value) / np.sqrt(mean.parts[1][0]) for mean in row] for row in means]
    return np.asarray(2 * norm.sf(ratios))


def _by_both(means: list[list[Mean]], aucs: FloatArray) -> FloatArray:
    """Bootstrap of photographs and trainings (Owen 2007, Ann. Appl. Stat. 1:386)."""
    changes = aucs[1:, ..., 1:] - aucs[:1, ..., 1:]
    trainings, replicates = changes.shape[1], changes.shape[3]
    chosen = np.random.default_rng(0).multinomial(
        trainings, np.full(trainings, 1 / trainings), size=replicates
    )
    drawn = np.einsum("strb,bt->srb", changes, chosen) / trainings
    values = np.array([[mean.value for mean in row] for row in means])
    return np.asarray(2 * norm.sf(np.abs(values) / drawn.std(axis=-1, ddof=1)))


def _by_satterthwaite(means: list[list[Mean]], aucs: FloatArray) -> FloatArray:
    """Student's t with Satterthwaite's degrees of freedom for the sum of the variances."""
    result = []
    for mean in (mean for row in means for mean in row):
        total = sum(variance for variance, _ in mean.parts)
        freedom = total**2 / sum(variance**2 / f for variance, f in mean.parts)
        result.append(2 * t.sf(abs(mean.value) / np.sqrt(total), freedom))
    return np.array(result).reshape(len(means), 2)


METHODS: dict[str, Callable[[list[list[Mean]], FloatArray], FloatArray]] = {
    "the rule": _by_rule,
    "photographs": _by_photographs,
    "bootstrap": _by_both,
    "Satterthwaite": _by_satterthwaite,
}
"""Methods to compute p-values of shape (strategies, 2)."""


def rounds(
    count: int, trainings: int, sources: int, spread: float, gain: float = 0.0
) -> dict[str, list[list[str]]]:
    """Return the verdicts in simulated comparisons, by method; the first strategy has the gain."""
    rng = np.random.default_rng([trainings, sources, round(1000 * spread)])
    gains = [gain, *[0.0] * (STRATEGIES - 1)]
    found: dict[str, list[list[str]]] = {method: [] for method in METHODS}
    for _ in range(count):
        logits = simulate(rng, trainings, sources, spread=spread, gains=gains)
        draws = rng.multinomial(sources, np.full(sources, 1 / sources), size=REPLICATES)
        aucs = auc_draws(logits, draws)
        means = estimates(aucs, sources)
        values = np.array([[mean.value for mean in row] for row in means])
        for method, p_values in METHODS.items():
            found[method].append(words(values, p_values(means, aucs)))
    return found


def main() -> None:
    given = parser("Measure the errors of verdicts.", rounds=1000).parse_args()
    cells = list(product((2, 3, 5, 10), (20, 60, 150), SPREADS))
    if given.smoke:
        given.rounds, cells = 5, [(3, 20, "alike")]
    rows = []
    for trainings, sources, spread in cells:
        nulls = rounds(given.rounds, trainings, sources, SPREADS[spread])
        wrong = {
            method: sum(any(word != NO_EVIDENCE for word in verdicts) for verdicts in comparisons)
            for method, comparisons in nulls.items()
        }
        called_better = sum(BETTER in verdicts for verdicts in nulls["the rule"])
        planted = rounds(given.rounds // 4 + 1, trainings, sources, SPREADS[spread], GAIN)
        detected = [verdicts[0] == BETTER for verdicts in planted["the rule"]]
        right = binomtest(given.rounds - wrong["the rule"], given.rounds).proportion_ci()
        rows.append(
            {
                "key": f"no_false_verdict_{trainings}_{sources}_{spread}",
                "what": f"{trainings} trainings, {spread}; {sources} photographs",
                "against": "no false verdict",
                "ratio": 1 - wrong["the rule"] / given.rounds,
                "low": float(right.low),
                "high": float(right.high),
                "wanted": 1 - RULES.error,
                "called_better": called_better / given.rounds,
                "false_verdicts": {method: n / given.rounds for method, n in wrong.items()},
                "truly_better_found": float(np.mean(detected)),
            }
        )
    notes = (
        f"{given.rounds} simulated comparisons per row, of {STRATEGIES} strategies equal to the "
        "baseline; the range is the 95 % confidence interval of the share"
    )
    report("verdicts", "verdicts", rows, resolve("auto", "auto", "auto"), given.output, notes)
    table(
        "false verdicts by method of the p-values; false “better” and detected ones by the rule",
        ["comparison", *METHODS, "false better", "detected"],
        [
            [row["what"], *(f"{row['false_verdicts'][method]:.3f}" for method in METHODS),
             f"{row['called_better']:.3f}", f"{row['truly_better_found']:.3f}"]
            for row in rows
        ],
    )  # fmt: skip


if __name__ == "__main__":
    main()

"""How often the rules of `verdicts` are wrong where nothing differs, and what they find.

    python -m benchmarks.verdicts [--rounds 1000]

A round makes up a comparison of three strategies with a baseline that differs from them only by
chance: by the photographs of the test, by the trainings, and by how each training takes each
photograph. The ratio is the share of rounds in which no strategy is called better or worse; at
least 0.95 is claimed. Its range is the 95 % interval of that share. Other ways to get a p-value are
given the same rounds, and a strategy that is truly better shows what the rules find.
"""

from collections.abc import Callable, Sequence
from itertools import product

import numpy as np
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
"""Mean logit of synthetic images of seen and unseen generators; of real ones it is 0."""
SPREADS = {"alike": 0.05, "unlike": 0.25}
"""How much a training moves the separation by itself: trainings come out alike, or they do not."""
GAIN = 1.0
"""Separation that a truly better strategy adds."""


def simulate(
    rng: np.random.Generator, trainings: int, sources: int, *, spread: float,
    gains: Sequence[float] = (0.0,) * STRATEGIES, images: int = 2,
) -> FloatArray:  # fmt: skip
    """Logits of a baseline and strategies, as several trainings of each score one test.

    What is added up: the photograph (the same for all), the image (likewise), how a side takes a
    photograph, how a training does, and noise; and for synthetic images the separation, which
    fold and seed move for all sides alike and every training by itself.

    Args:
        rng: draws.
        trainings: of each side.
        sources: photographs.
        spread: standard deviation of a training's separation.
        gains: separation that each strategy adds to the baseline's.
        images: of each kind from each photograph.

    Returns:
        Shape (1 + strategies, trainings, kinds, sources, images); the kinds are real, seen and
        unseen.
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


def auc_draws(logits: FloatArray, draws: FloatArray) -> FloatArray:
    """AUC of the seen and the unseen, as measured and under draws of photographs.

    The same numbers as `weighted_metrics` gives, from counts of ordered pairs of images by pair of
    photographs, which is faster; no two logits are equal.

    Args:
        logits: as `simulate` returns them.
        draws: how often each photograph is drawn, shape (replicates, sources).

    Returns:
        Shape (sides, trainings, 2, 1 + replicates).
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
    """The change of each strategy's AUC seen and unseen; each training has a fold of its own."""
    changes = aucs[1:] - aucs[:1]
    folds = np.arange(aucs.shape[1])
    return [[Mean.of(one[:, part], folds, sources) for part in (0, 1)] for one in changes]


def words(values: FloatArray, p_values: FloatArray) -> list[str]:
    """Each strategy's verdict from differences and p-values of shape (strategies, 2)."""
    adjusted = holm(p_values.ravel()).reshape(p_values.shape)
    return [
        word_for(zip(value, p, strict=True), lost=0, error=RULES.error)
        for value, p in zip(values, adjusted, strict=True)
    ]


def _by_rule(means: list[list[Mean]], aucs: FloatArray) -> FloatArray:
    return np.array([[mean.p_value() for mean in row] for row in means])


def _by_photographs(means: list[list[Mean]], aucs: FloatArray) -> FloatArray:
    """The bootstrap by photograph alone, as if other trainings came out the same."""
    ratios = [[abs(mean.value) / np.sqrt(mean.parts[1][0]) for mean in row] for row in means]
    return np.asarray(2 * norm.sf(ratios))


def _by_both(means: list[list[Mean]], aucs: FloatArray) -> FloatArray:
    """The bootstrap over photographs and trainings (Owen 2007, Ann. Appl. Stat. 1:386)."""
    changes = aucs[1:, ..., 1:] - aucs[:1, ..., 1:]
    trainings, replicates = changes.shape[1], changes.shape[3]
    chosen = np.random.default_rng(0).multinomial(
        trainings, np.full(trainings, 1 / trainings), size=replicates
    )
    drawn = np.einsum("strb,bt->srb", changes, chosen) / trainings
    values = np.array([[mean.value for mean in row] for row in means])
    return np.asarray(2 * norm.sf(np.abs(values) / drawn.std(axis=-1, ddof=1)))


def _by_satterthwaite(means: list[list[Mean]], aucs: FloatArray) -> FloatArray:
    """Student's t with the degrees of freedom that Satterthwaite gives the sum of the parts."""
    result = []
    for mean in (mean for row in means for mean in row):
        total = sum(variance for variance, _ in mean.parts)
        freedom = total**2 / sum(variance**2 / f for variance, f in mean.parts)
        result.append(2 * t.sf(abs(mean.value) / np.sqrt(total), freedom))
    return np.array(result).reshape(len(means), 2)


WAYS: dict[str, Callable[[list[list[Mean]], FloatArray], FloatArray]] = {
    "the rule": _by_rule,
    "photographs": _by_photographs,
    "bootstrap": _by_both,
    "Satterthwaite": _by_satterthwaite,
}
"""Ways to p-values of shape (strategies, 2)."""


def rounds(
    count: int, trainings: int, sources: int, spread: float, gain: float = 0.0
) -> dict[str, list[list[str]]]:
    """Verdicts in made-up comparisons, by way; the first strategy has the gain."""
    rng = np.random.default_rng([trainings, sources, round(1000 * spread)])
    gains = [gain, *[0.0] * (STRATEGIES - 1)]
    found: dict[str, list[list[str]]] = {way: [] for way in WAYS}
    for _ in range(count):
        logits = simulate(rng, trainings, sources, spread=spread, gains=gains)
        draws = rng.multinomial(sources, np.full(sources, 1 / sources), size=REPLICATES)
        aucs = auc_draws(logits, draws)
        means = estimates(aucs, sources)
        values = np.array([[mean.value for mean in row] for row in means])
        for way, p_values in WAYS.items():
            found[way].append(words(values, p_values(means, aucs)))
    return found


def main() -> None:
    given = parser("verdicts", rounds=1000).parse_args()
    cells = list(product((2, 3, 5, 10), (20, 60, 150), SPREADS))
    if given.smoke:
        given.rounds, cells = 5, [(3, 20, "alike")]
    rows = []
    for trainings, sources, spread in cells:
        nulls = rounds(given.rounds, trainings, sources, SPREADS[spread])
        wrong = {
            way: sum(any(word != NO_EVIDENCE for word in said) for said in all_said)
            for way, all_said in nulls.items()
        }
        called_better = sum(BETTER in said for said in nulls["the rule"])
        planted = rounds(given.rounds // 4 + 1, trainings, sources, SPREADS[spread], GAIN)
        found = [said[0] == BETTER for said in planted["the rule"]]
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
                "false_verdicts": {way: count / given.rounds for way, count in wrong.items()},
                "truly_better_found": float(np.mean(found)),
            }
        )
    notes = (
        f"{given.rounds} made-up comparisons of {STRATEGIES} strategies equal to the baseline a "
        "row; the range is the 95 % interval of the share"
    )
    report("verdicts", "verdicts", rows, resolve("auto", "auto", "auto"), given.output, notes)
    table(
        "false verdicts by how p-values are got; false “better” by the rule; truly better found",
        ["comparison", *WAYS, "better", "found"],
        [
            [row["what"], *(f"{row['false_verdicts'][way]:.3f}" for way in WAYS),
             f"{row['called_better']:.3f}", f"{row['truly_better_found']:.3f}"]
            for row in rows
        ],
    )  # fmt: skip


if __name__ == "__main__":
    main()

"""Whether scores point the wrong way, in words: inverted, or worse than chance."""

from collections.abc import Mapping

from synthdetect.evaluation.predictions import MEAN, WORST, Evaluation

INVERTED = 0.35
"""Mean AUC of the generators below chance under which scores are called inverted. Reversed, they
would have at least 0.65, which the scores of a detector that knows nothing do not reach."""

_CHANCE = 0.5


def direction_words(evaluations: Mapping[str, Evaluation]) -> list[str]:
    """Return a sentence for each split whose scores are below chance for most generators.

    A generator is below chance if the whole 95 % interval of its AUC is. If the mean of these AUCs
    is less than `INVERTED`, the scores are called inverted, else worse than chance.
    """
    found = []
    for split, evaluation in evaluations.items():
        table = evaluation.generators
        if table.empty:
            continue
        rows = table[~table["generator"].isin((MEAN, WORST))]
        below = rows[rows["auc_high"] < _CHANCE]
        if 2 * len(below) <= len(rows):
            continue
        mean = float(below["auc"].mean())
        which = f"{len(below)} of {len(rows)} generators" if len(rows) > 1 else "the generator"
        head = f"{split}: the AUC is below chance for {which} (mean of these {mean:.3f})"
        if mean < INVERTED:
            found.append(
                f"{head}: the scores are inverted. Reversed, it would be {1 - mean:.3f}. Check "
                "that the score is that of being synthetic, not real, and that label 1 is "
                "synthetic."
            )
        else:
            found.append(
                f"{head}: worse than chance. The detector takes their images for more real than "
                "real ones; if no sign or label is mistaken, it has learned something that these "
                "generators lack."
            )
    return found

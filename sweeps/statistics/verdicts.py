"""Verdicts on a strategy by explicit rules, and its faults.

Each verdict rests on a test of the primary outcome, corrected over the strategies: *better* and
*worse* on the test of no difference; *equivalent* on two one-sided tests, which together show that
the change is smaller than the smallest effect of interest in either direction (Schuirmann 1987, J.
Pharmacokinet. Biopharm. 15:657); *not better* on the one of them that shows that it has not grown
by as much. Where none of these succeeds, the verdict is *inconclusive*, and nothing follows from
it. The probability that any of the strategies is wrongly called better or worse is at most
`Rules.error`, and so is the probability that any is wrongly called equivalent or not better.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd

from sweeps.statistics.comparison import OUTCOMES, Comparison, part_of
from sweeps.statistics.paper import PAPER_CLAIMS, PaperClaim

BETTER, WORSE, EQUIVALENT, NOT_BETTER, INCONCLUSIVE = WORDS = (
    "better", "worse", "equivalent", "not better", "inconclusive",
)  # fmt: skip
"""The words of verdicts, in the order of reports."""

_NO_BETTER = {WORSE, EQUIVALENT, NOT_BETTER}


@dataclass(frozen=True)
class Rules:
    """Thresholds of the rules.

    Attributes:
        error: Largest probability that any strategy that has not changed is called better or
            worse; that any that has changed by the smallest effect or more is called equivalent
            or, having grown by it, not better; and, for each criterion alone, that any is found to
            meet it. It applies to the values that tuning chose, and leaves out that another tuning
            would have chosen others.
        smallest_effect: Smallest change of AUC that is of interest.
        gap: Growth of the gap between training and validation AUC from which on a strategy
            overfits.
        ece: Growth of the expected calibration error from which on it is miscalibrated.
        cost: Ratio of training time per image, or of peak memory, from which on it is costly.
    """

    error: float = 0.05
    smallest_effect: float = 0.02
    gap: float = 0.01
    ece: float = 0.01
    cost: float = 1.25


RULES = Rules()

_VERDICT_RULES = {
    BETTER: "the primary outcome (the AUC on unseen generators or, if the test has none, "
    "in-distribution) is higher, with a p-value, corrected over all strategies, of at most "
    "{error:g}; the strategy is not equivalent; and no final fit of it was lost",
    WORSE: "the primary outcome is lower, with such a p-value, and the strategy is not equivalent",
    EQUIVALENT: "two one-sided tests, with a corrected p-value of at most {error:g}, show that the "
    "primary outcome differs by less than ±{smallest_effect:g}, and no final fit of the strategy "
    "was lost; also if the difference is significant, which the reasons then say",
    NOT_BETTER: "the primary outcome has grown by less than {smallest_effect:g}, with a corrected "
    "one-sided p-value of at most {error:g}, and nothing above applies",
    INCONCLUSIVE: "anything else, which speaks neither for nor against the strategy; always if "
    "each side has one final fit",
}


@dataclass(frozen=True)
class Criterion:
    """A fault that a strategy can have, whatever its AUC.

    Attributes:
        rule: The rule in words, with the names of thresholds in braces.
        evidence: Returns what shows the fault in a comparison, in words with numbers; an empty
            list if the criterion is not met.
    """

    rule: str
    evidence: Callable[[Comparison, Rules], list[str]]


def _grown(outcome: str, margin: str | None = None) -> Callable[[Comparison, Rules], list[str]]:
    """Evidence that an outcome has grown significantly and by more than a margin of the rules."""

    def evidence(comparison: Comparison, rules: Rules) -> list[str]:
        d = comparison.differences[outcome]
        least = getattr(rules, margin) if margin else (1.0 if OUTCOMES[outcome].is_ratio else 0.0)
        is_met = d.p_adjusted <= rules.error and d.value > least
        return [_in_words(comparison, outcome)] if is_met else []

    return evidence


def _lost(comparison: Comparison, rules: Rules) -> list[str]:
    started = comparison.fits + comparison.lost + comparison.baseline_lost
    return [f"{comparison.lost} of {started} final fits lost"] if comparison.lost else []


def _any(*tests: Callable[[Comparison, Rules], list[str]]) -> Callable[..., list[str]]:
    return lambda comparison, rules: [words for test in tests for words in test(comparison, rules)]


CRITERIA: dict[str, Criterion] = {
    "overfits": Criterion(
        "training minus validation AUC has grown by more than {gap:g}, with a corrected p-value of "
        "at most {error:g}",
        _grown("gap", "gap"),
    ),
    "unstable": Criterion(
        "a final fit diverged or failed; or the spread of AUC over final fits, or the share of "
        "failed trials, is larger with a corrected p-value of at most {error:g}",
        _any(_lost, _grown("spread_seen"), _grown("spread_unseen"), _grown("failed_trials")),
    ),
    "costly": Criterion(
        "training time per image or peak memory is more than {cost:g} times the baseline's, and "
        "larger with a corrected p-value of at most {error:g}; both as measured on the machine of "
        "each final fit",
        _any(_grown("seconds", "cost"), _grown("memory", "cost")),
    ),
    "miscalibrated": Criterion(
        "the expected calibration error in-distribution, before or after calibration on "
        "validation, has grown by more than {ece:g}, with a corrected p-value of at most {error:g}",
        _any(_grown("raw_ece_seen", "ece"), _grown("ece_seen", "ece")),
    ),
}
"""Criteria by name, in the order of reports."""


@dataclass(frozen=True)
class Verdict:
    """The verdict on one strategy.

    Attributes:
        word: One of `WORDS`.
        criteria: Names of the `CRITERIA` that are met.
        because: The reasons in words, with their numbers.
    """

    word: str
    criteria: tuple[str, ...]
    because: str


def verdict(comparison: Comparison, rules: Rules = RULES) -> Verdict:
    """Judge one strategy by the rules.

    Args:
        comparison: Comparison at the level 1 - `rules.error` and with `rules.smallest_effect`.
        rules: Thresholds.
    """
    primary = comparison.differences[comparison.primary]
    tests = (primary.value, primary.p_adjusted, comparison.p_equivalent, comparison.p_not_better)
    word = word_for(*tests, lost=comparison.lost, error=rules.error)
    reasons = [*_why(comparison, word, rules), _in_words(comparison, comparison.primary)]
    reasons += [_equivalence_in_words(comparison)]
    if word == INCONCLUSIVE:
        reasons.append(_why_unknown(comparison))
    met = {
        name: evidence
        for name, criterion in CRITERIA.items()
        if (evidence := criterion.evidence(comparison, rules))
    }
    reasons += [f"{name}: {', '.join(evidence)}" for name, evidence in met.items()]
    if comparison.baseline_lost:
        reasons.append(f"the baseline lost {comparison.baseline_lost} final fits")
    return Verdict(word, tuple(met), "; ".join(reason for reason in reasons if reason))


def word_for(
    value: float, p: float, p_equivalent: float, p_not_better: float, *, lost: int, error: float
) -> str:
    """Return the word of a verdict.

    Args:
        value: Change of the primary outcome.
        p: Corrected p-value of no change. A p-value of nan is not significant.
        p_equivalent: Corrected p-value of two one-sided tests.
        p_not_better: Corrected p-value of the one of them against growth.
        lost: Number of final fits of the strategy that diverged or failed. The others may be the
            better ones, so they show neither that it is better nor that it is equivalent.
        error: Largest corrected p-value that is significant.
    """
    if p_equivalent <= error and not lost:
        return EQUIVALENT
    if p <= error and value < 0:
        return WORSE
    if p <= error and not lost:
        return BETTER
    return NOT_BETTER if p_not_better <= error else INCONCLUSIVE


def verdict_table(comparisons: dict[str, Comparison], rules: Rules = RULES) -> pd.DataFrame:
    """Tabulate verdicts beside the paper claims, one row per strategy.

    Returns:
        Columns `strategy`, `verdict`, `criteria`, `because`, `paper` (the quotes),
        `paper_respects` (the criteria that the paper names), `paper_mark` (whether the verdict
        supports the paper; `PaperClaim.mark`) and `respects_confirmed` (the criteria that the
        paper names and that are met).
    """
    rows = []
    for name, comparison in comparisons.items():
        judged = verdict(comparison, rules)
        claim = PAPER_CLAIMS.get(name, PaperClaim())
        both = [criterion for criterion in judged.criteria if criterion in claim.criteria]
        rows.append(
            {
                "strategy": name,
                "verdict": judged.word,
                "criteria": ", ".join(judged.criteria),
                "because": judged.because,
                "paper": claim.text,
                "paper_respects": ", ".join(claim.criteria),
                "paper_mark": claim.mark(judged.word in _NO_BETTER, judged.word == BETTER),
                "respects_confirmed": ", ".join(both),
            }
        )
    return pd.DataFrame(rows)


def rules_table(rules: Rules = RULES) -> pd.DataFrame:
    """Tabulate all rules in words: columns `verdict` and `rule`."""
    criteria = {name: criterion.rule for name, criterion in CRITERIA.items()}
    texts = {**_VERDICT_RULES, **criteria}
    rows = [(name, text.format(**vars(rules))) for name, text in texts.items()]
    return pd.DataFrame(rows, columns=["verdict", "rule"])


def _in_words(comparison: Comparison, outcome: str) -> str:
    """A difference in words, with its simultaneous interval."""
    properties, d = OUTCOMES[outcome], comparison.differences[outcome]
    if np.isnan(d.value):
        return f"{properties.label} not defined"
    number = "{:.2f}" if properties.is_ratio else "{:+.3f}"
    low, high, value = (number.format(x) for x in (d.wide_low, d.wide_high, d.value))
    start = f"{properties.label} {'times ' if properties.is_ratio else ''}{value}"
    if np.isnan(d.p_adjusted):
        return start
    return f"{start} [{low}, {high}], corrected p = {d.p_adjusted:.2g}"


def _why(comparison: Comparison, word: str, rules: Rules) -> list[str]:
    """What the word alone does not say."""
    d = comparison.differences[comparison.primary]
    if word == EQUIVALENT and d.p_adjusted <= rules.error:
        direction = "higher" if d.value > 0 else "lower"
        return [f"{direction}, but by less than the smallest effect of interest"]
    if comparison.lost and word in (NOT_BETTER, INCONCLUSIVE):
        whole = (d.value, d.p_adjusted, comparison.p_equivalent, comparison.p_not_better)
        instead = word_for(*whole, lost=0, error=rules.error)
        if instead != word:
            return [f"{instead} only in the final fits that were completed"]
    return []


def _equivalence_in_words(comparison: Comparison) -> str:
    """The tests against the smallest effect in words."""
    if np.isnan(comparison.p_equivalent):
        return ""
    margin = f"{comparison.smallest_effect:g}"
    return (
        f"against ±{margin}, corrected p = {comparison.p_equivalent:.2g}, "
        f"against +{margin} alone, {comparison.p_not_better:.2g}"
    )


def _why_unknown(comparison: Comparison) -> str:
    """Why nothing was shown: what is missing, or how large a change must be to be detected."""
    if not comparison.fits:
        return "no final fit was completed"
    if comparison.fits == 1:
        return "each side has one final fit, so the variation between final fits is unknown"
    detectable = comparison.differences[comparison.primary].detectable
    if np.isnan(detectable):
        sources = comparison.sources[part_of(comparison.primary)]
        return f"only {sources} test photographs of one of the classes"
    return (
        f"with {comparison.fits} final fits on each side, changes below {detectable:.3f} cannot be "
        "detected"
    )

"""Verdicts on a strategy by explicit rules: better, worse or no evidence, and its faults."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
import pandas as pd

from sweeps.statistics.comparison import OUTCOMES, PRIMARY, Comparison
from sweeps.statistics.paper import PAPER_CLAIMS, PaperClaim

BETTER, NO_EVIDENCE, WORSE = "better", "no evidence", "worse"


@dataclass(frozen=True)
class Rules:
    """Thresholds of the rules.

    Attributes:
        error: Largest probability that any of the strategies that are equal to the baseline is
            called better or worse; and, for each criterion alone, that any is found to meet it. It
            applies to the values that tuning chose, and leaves out that another tuning would have
            chosen others.
        gap: Growth of the gap between training and validation AUC from which on a strategy
            overfits.
        ece: Growth of the expected calibration error from which on it is miscalibrated.
        cost: Ratio of training time per image, or of peak memory, from which on it is costly.
    """

    error: float = 0.05
    gap: float = 0.01
    ece: float = 0.01
    cost: float = 1.25


RULES = Rules()

_VERDICT_RULES = {
    BETTER: "the AUC in-distribution or on unseen generators is higher, with a p-value, corrected "
    "over all strategies and both AUCs, of at most {error:g}; neither is lower with such a "
    "p-value; and no final fit of the strategy was lost",
    WORSE: "the AUC in-distribution or on unseen generators is lower, with such a p-value",
    NO_EVIDENCE: "anything else; always if each side has one independent final fit, from which "
    "nothing follows for others",
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
        word: `better`, `no evidence` or `worse`.
        criteria: Names of the `CRITERIA` that are met.
        because: The reasons in words, with their numbers.
    """

    word: str
    criteria: tuple[str, ...]
    because: str


def verdict(comparison: Comparison, rules: Rules = RULES) -> Verdict:
    """Judge one strategy by the rules.

    Args:
        comparison: Comparison at the level 1 - `rules.error`, so that intervals and verdict agree.
        rules: Thresholds.
    """
    primary = [name for name, outcome in OUTCOMES.items() if outcome.family == PRIMARY]
    differences = [comparison.differences[name] for name in primary]
    changes = [(d.value, d.p_adjusted) for d in differences]
    word = word_for(changes, lost=comparison.lost, error=rules.error)
    reasons = [", ".join(_in_words(comparison, name) for name in primary)]
    if word == NO_EVIDENCE:
        reasons.insert(0, "no evidence of a difference")
        reasons.append(_why_unknown(comparison, primary))
        if word_for(changes, lost=0, error=rules.error) == BETTER:
            reasons[0] = "better only in the final fits that were completed"
    met = {
        name: evidence
        for name, criterion in CRITERIA.items()
        if (evidence := criterion.evidence(comparison, rules))
    }
    reasons += [f"{name}: {', '.join(evidence)}" for name, evidence in met.items()]
    if comparison.baseline_lost:
        reasons.append(f"the baseline lost {comparison.baseline_lost} final fits")
    return Verdict(word, tuple(met), "; ".join(reason for reason in reasons if reason))


def word_for(changes: Iterable[tuple[float, float]], *, lost: int, error: float) -> str:
    """Return the word of a verdict.

    Args:
        changes: Difference and corrected p-value of each primary outcome.
        lost: Number of final fits of the strategy that diverged or failed.
        error: Largest corrected p-value that is significant.
    """
    significant = [value for value, p in changes if p <= error]  # a p-value of nan is not
    if any(value < 0 for value in significant):
        return WORSE
    return BETTER if significant and not lost else NO_EVIDENCE


def verdict_table(comparisons: dict[str, Comparison], rules: Rules = RULES) -> pd.DataFrame:
    """Tabulate verdicts beside the paper claims, one row per strategy.

    Returns:
        Columns `strategy`, `verdict`, `criteria`, `because`, `paper` (the quotes),
        `paper_respects` (the criteria that the paper names), `paper_against_verdict` and
        `respects_confirmed` (the criteria that the paper names and that are met).
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
                "paper_against_verdict": claim.against(judged.word == BETTER, judged.word == WORSE),
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


def _why_unknown(comparison: Comparison, primary: list[str]) -> str:
    """Why there is no evidence: what is missing, or how large a change must be to be detected."""
    if not comparison.independent:
        return "no final fit was completed"
    if comparison.independent == 1:
        return (
            "each side has one independent final fit, so the variation between final fits is "
            "unknown"
        )
    detectable = {
        OUTCOMES[name].label: comparison.differences[name].detectable
        for name in primary
        if not np.isnan(comparison.differences[name].detectable)
    }
    if not detectable:
        return f"only {min(comparison.sources.values())} test photographs of one of the classes"
    limits = ", ".join(f"{half:.3f} of {label}" for label, half in detectable.items())
    return (
        f"with {comparison.independent} independent final fits on each side, changes below "
        f"{limits} cannot be detected"
    )

"""Verdicts: better, worse or no evidence, and by which criterion; by stated rules."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
import pandas as pd

from sweeps.statistics.comparison import OUTCOMES, PRIMARY, Comparison
from sweeps.statistics.paper import CLAIMS, Claim

BETTER, NO_EVIDENCE, WORSE = "better", "no evidence", "worse"


@dataclass(frozen=True)
class Rules:
    """The thresholds that the rules name.

    Attributes:
        error: largest chance that any strategy that differs from the baseline in nothing is called
            better or worse; and, for each criterion by itself, that any is said to show it. It is
            of what tuning chose: that another tuning would have chosen otherwise is not in it.
        gap: AUC by which the gap between training and validation must grow to be called overfit.
        ece: expected calibration error by which it must grow to be called miscalibrated.
        cost: ratio of training time per image, or of peak memory, from which on it is costly.
    """

    error: float = 0.05
    gap: float = 0.01
    ece: float = 0.01
    cost: float = 1.25


RULES = Rules()

_WORDS = {
    BETTER: "the AUC in-distribution or on unseen generators is higher, with a p-value, corrected "
    "over all strategies and both AUCs, of at most {error:g}; neither is lower by that measure; "
    "and no final training of the strategy was lost",
    WORSE: "the AUC in-distribution or on unseen generators is lower, with such a p-value",
    NO_EVIDENCE: "anything else; always where there is one independent training a side, which says "
    "nothing of others",
}


@dataclass(frozen=True)
class Criterion:
    """One way in which a strategy can be at fault, whatever its AUC.

    Attributes:
        rule: in words; thresholds are named in braces.
        found: from a comparison: what shows it, in words with numbers; none if it does not hold.
    """

    rule: str
    found: Callable[[Comparison, Rules], list[str]]


def _grown(outcome: str, margin: str | None = None) -> Callable[[Comparison, Rules], list[str]]:
    """Whether something bad has grown, beyond chance and by more than the margin."""

    def found(comparison: Comparison, rules: Rules) -> list[str]:
        d = comparison.differences[outcome]
        least = getattr(rules, margin) if margin else (1.0 if OUTCOMES[outcome].is_ratio else 0.0)
        holds = d.p_adjusted <= rules.error and d.value > least
        return [_said(comparison, outcome)] if holds else []

    return found


def _lost(comparison: Comparison, rules: Rules) -> list[str]:
    of = comparison.trainings + comparison.lost + comparison.baseline_lost
    return [f"{comparison.lost} of {of} final trainings lost"] if comparison.lost else []


def _any(*tests: Callable[[Comparison, Rules], list[str]]) -> Callable[..., list[str]]:
    return lambda comparison, rules: [said for test in tests for said in test(comparison, rules)]


RESPECTS: dict[str, Criterion] = {
    "overfits": Criterion(
        "training minus validation AUC has grown by more than {gap:g}, with a corrected p-value of "
        "at most {error:g}",
        _grown("gap", "gap"),
    ),
    "unstable": Criterion(
        "a final training diverged or failed; or the spread of AUC over trainings, or the share of "
        "failed trials, is larger with a corrected p-value of at most {error:g}",
        _any(_lost, _grown("spread_seen"), _grown("spread_unseen"), _grown("failed_trials")),
    ),
    "costly": Criterion(
        "training time per image or peak memory is more than {cost:g} times the baseline's, and "
        "more than once with a corrected p-value of at most {error:g}; both as measured, on "
        "whatever machine made each training",
        _any(_grown("seconds", "cost"), _grown("memory", "cost")),
    ),
    "miscalibrated": Criterion(
        "the expected calibration error in-distribution, before calibration on validation or after "
        "it, has grown by more than {ece:g}, with a corrected p-value of at most {error:g}",
        _any(_grown("raw_ece_seen", "ece"), _grown("ece_seen", "ece")),
    ),
}
"""Criteria by name, in the order of reports."""


@dataclass(frozen=True)
class Verdict:
    """What is said of one strategy.

    Attributes:
        word: `better`, `no evidence` or `worse`.
        criteria: the keys of `RESPECTS` that hold.
        because: the numbers, in words.
    """

    word: str
    criteria: tuple[str, ...]
    because: str


def verdict(comparison: Comparison, rules: Rules = RULES) -> Verdict:
    """Judge one strategy by the rules.

    Args:
        comparison: with a level of 1 - `rules.error`, so that intervals and verdict agree.
        rules: the thresholds.
    """
    primary = [name for name, outcome in OUTCOMES.items() if outcome.family == PRIMARY]
    differences = [comparison.differences[name] for name in primary]
    changes = [(d.value, d.p_adjusted) for d in differences]
    said = word_for(changes, lost=comparison.lost, error=rules.error)
    reasons = [", ".join(_said(comparison, name) for name in primary)]
    if said == NO_EVIDENCE:
        reasons.insert(0, "no evidence of a difference")
        reasons.append(_why_unknown(comparison, primary))
        if word_for(changes, lost=0, error=rules.error) == BETTER:
            reasons[0] = "better only in the trainings that came to their end"
    found = {name: criterion.found(comparison, rules) for name, criterion in RESPECTS.items()}
    reasons += [f"{name}: {', '.join(what)}" for name, what in found.items() if what]
    if comparison.baseline_lost:
        reasons.append(f"the baseline lost {comparison.baseline_lost} final trainings")
    return Verdict(
        said,
        tuple(name for name, what in found.items() if what),
        "; ".join(reason for reason in reasons if reason),
    )


def word_for(changes: Iterable[tuple[float, float]], *, lost: int, error: float) -> str:
    """The verdict's word.

    Args:
        changes: value and corrected p-value of each primary outcome.
        lost: final trainings of the strategy that diverged or failed.
        error: largest corrected p-value that counts.
    """
    held = [value for value, p in changes if p <= error]  # nan is not
    if any(value < 0 for value in held):
        return WORSE
    return BETTER if held and not lost else NO_EVIDENCE


def verdict_table(comparisons: dict[str, Comparison], rules: Rules = RULES) -> pd.DataFrame:
    """A row a strategy: verdict and reasons, and beside them what the paper says of it.

    Returns:
        Columns `strategy`, `verdict`, `criteria`, `because`, `paper` (its words), `paper_respects`,
        `paper_against_verdict` and `respects_confirmed` (those that the paper and the rules name).
    """
    rows = []
    for name, comparison in comparisons.items():
        judged = verdict(comparison, rules)
        claim = CLAIMS.get(name, Claim((), ()))
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
    """Every rule in words, for reports: columns `verdict` and `rule`."""
    named = {**_WORDS, **{name: r.rule for name, r in RESPECTS.items()}}
    rows = [(name, text.format(**vars(rules))) for name, text in named.items()]
    return pd.DataFrame(rows, columns=["verdict", "rule"])


def _said(comparison: Comparison, outcome: str) -> str:
    """A difference in words, with the simultaneous interval."""
    about, d = OUTCOMES[outcome], comparison.differences[outcome]
    if np.isnan(d.value):
        return f"{about.label} not defined"
    number = "{:.2f}" if about.is_ratio else "{:+.3f}"
    low, high, value = (number.format(x) for x in (d.wide_low, d.wide_high, d.value))
    start = f"{about.label} {'times ' if about.is_ratio else ''}{value}"
    if np.isnan(d.p_adjusted):
        return start
    return f"{start} [{low}, {high}], corrected p = {d.p_adjusted:.2g}"


def _why_unknown(comparison: Comparison, primary: list[str]) -> str:
    """Why there is no evidence: what was missing, or how large a change could have been seen."""
    if not comparison.independent:
        return "no final training came to its end"
    if comparison.independent == 1:
        return (
            "one independent training a side: how far results differ from training to training is "
            "unknown"
        )
    seen = {
        OUTCOMES[name].label: comparison.differences[name].detectable
        for name in primary
        if not np.isnan(comparison.differences[name].detectable)
    }
    if not seen:
        return f"{min(comparison.sources.values())} test photographs that have both classes"
    limits = ", ".join(f"{half:.3f} of {label}" for label, half in seen.items())
    return (
        f"with {comparison.independent} independent trainings a side changes below {limits} could "
        "not be told from none"
    )

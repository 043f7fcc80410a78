"""Simulated differences are judged correctly, and equal strategies at the stated error rate."""

import math
from dataclasses import replace
from functools import cache

import numpy as np
import pandas as pd
import pytest

from benchmarks.verdicts import auc_draws, estimates, rounds, simulate
from sweeps.statistics.comparison import Comparison, compare
from sweeps.statistics.final_fits import Side
from sweeps.statistics.paper import PAPER_CLAIMS
from sweeps.statistics.verdicts import (
    BETTER,
    CRITERIA,
    NO_EVIDENCE,
    RULES,
    WORSE,
    Rules,
    rules_table,
    verdict,
    verdict_table,
    word_for,
)
from tests.sweeps.conftest import alter, simulated_sides

FIVE = [(fold, 40 + fold) for fold in range(5)]


def compared(sides: list[Side]) -> dict[str, Comparison]:
    return compare(sides[0], sides[1:], replicates=200)


@pytest.fixture(scope="module")
def sides() -> list[Side]:
    """A baseline, and a truly better, a truly worse and an equal strategy."""
    return simulated_sides({"sgd": 1.2, "mixup": -0.9, "focal": 0.0}, spread=0.05, seed=1)


def scaled(side: Side, **factors: float) -> Side:
    """The side with attributes of its final fits multiplied by factors."""
    return alter(
        side,
        lambda fit: replace(
            fit, **{name: getattr(fit, name) * factor for name, factor in factors.items()}
        ),
    )


# --- simulated differences


def test_truly_better_worse_and_equal_strategies_are_called_so(sides: list[Side]) -> None:
    words = {name: verdict(c).word for name, c in compared(sides).items()}
    assert words == {"sgd": BETTER, "mixup": WORSE, "focal": NO_EVIDENCE}


@pytest.mark.parametrize("seed", range(3))
def test_an_equal_strategy_is_no_evidence_with_the_detectable_change(seed: int) -> None:
    found = compared(simulated_sides({"focal": 0.0}, seed=seed, sources=25, keys=FIVE[:3]))["focal"]
    judged = verdict(found)
    assert judged.word == NO_EVIDENCE
    assert judged.because.startswith("no evidence of a difference; AUC in-distribution")
    half = found.differences["auc_unseen"].detectable
    assert f"{half:.3f} of AUC on unseen generators" in judged.because


def test_each_criterion_is_met_by_the_strategy_with_the_fault_alone() -> None:
    gains = dict.fromkeys(["a", "b", "c", "d", "e"], 0.0)
    baseline, a, b, c, d, e = simulated_sides(gains, sources=25)
    overfit = scaled(a, val_auc=0.9)
    slow = scaled(b, seconds_per_image=1.4)
    large = scaled(c, peak_mib=1.3)
    shifted = alter(d, lambda fit: replace(fit, seen=fit.seen.assign(logit=fit.seen["logit"] + 3)))
    failing = replace(e, failed_trials=9)
    found = compare(baseline, [overfit, slow, large, shifted, failing], replicates=200)
    assert {name: verdict(one).criteria for name, one in found.items()} == {
        "a": ("overfits",), "b": ("costly",), "c": ("costly",), "d": ("miscalibrated",),
        "e": ("unstable",),
    }  # fmt: skip
    assert "costly: training time per image times 1." in verdict(found["b"]).because
    assert {verdict(one).word for one in found.values()} == {NO_EVIDENCE}


def test_a_strategy_that_calibration_repairs_is_miscalibrated_too() -> None:
    baseline, strategy = simulated_sides({"mixup": 0.0}, sources=25)
    stretched = alter(
        strategy,
        lambda fit: replace(fit, seen=fit.seen.assign(raw_logit=fit.seen["raw_logit"] * 4 + 3)),
    )
    judged = verdict(compared([baseline, stretched])["mixup"])
    assert (judged.word, judged.criteria) == (NO_EVIDENCE, ("miscalibrated",))
    assert "miscalibrated: ECE before calibration in-distribution" in judged.because


def test_a_high_cost_of_a_single_final_fit_is_not_costly() -> None:
    baseline, strategy = simulated_sides({"a": 0.0}, sources=15)
    first, *others = strategy.fits
    slow = replace(strategy, fits=(replace(first, seconds_per_image=0.1), *others))
    found = compared([baseline, slow])["a"]
    assert found.differences["seconds"].value > RULES.cost
    assert verdict(found).criteria == ()


def test_a_memory_peak_of_zero_is_unknown() -> None:
    baseline, strategy = simulated_sides({"a": 0.0}, sources=15)
    unknown = scaled(strategy, peak_mib=0.0)
    found = compared([baseline, unknown])["a"]
    assert math.isnan(found.differences["memory"].value)
    assert verdict(found).criteria == ()


def test_a_larger_spread_between_final_fits_is_unstable() -> None:
    """The results of the strategy range from random to perfect over the folds."""
    (baseline, strategy) = simulated_sides({"a": 0.0}, sources=25)
    spread = tuple(
        replace(fit, seen=fit.seen.assign(logit=fit.seen["logit"] + shift * fit.seen["label"]))
        for fit, shift in zip(strategy.fits, (-2.0, -1.5, 0.0, 2.0, 4.0), strict=True)
    )
    judged = verdict(compared([baseline, replace(strategy, fits=spread)])["a"])
    assert (judged.word, judged.criteria) == (NO_EVIDENCE, ("unstable",))
    assert "unstable: spread of AUC in-distribution times" in judged.because


def test_a_strategy_that_lost_a_final_fit_is_unstable_and_not_better(sides: list[Side]) -> None:
    baseline, better, *others = sides
    lost = replace(better, fits=better.fits[1:], lost=(better.fits[0].key,))
    judged = verdict(compared([baseline, lost, *others])["sgd"])
    assert (judged.word, judged.criteria[0]) == (NO_EVIDENCE, "unstable")
    assert judged.because.startswith("better only in the final fits that were completed")
    assert "1 of 5 final fits lost" in judged.because


def test_a_strategy_that_lost_all_final_fits() -> None:
    baseline, strategy = simulated_sides({"a": 0.0}, sources=15)
    lost = tuple(fit.key for fit in strategy.fits)
    judged = verdict(compared([baseline, replace(strategy, fits=(), lost=lost)])["a"])
    assert (judged.word, judged.criteria) == (NO_EVIDENCE, ("unstable",))
    assert "no final fit was completed" in judged.because
    assert "5 of 5 final fits lost" in judged.because


def test_final_fits_that_the_baseline_lost_are_counted() -> None:
    baseline, strategy = simulated_sides({"a": 0.0}, sources=15)
    less = replace(baseline, fits=baseline.fits[1:], lost=(FIVE[0],))
    assert "the baseline lost 1 final fits" in verdict(compared([less, strategy])["a"]).because


# --- too few data


def test_one_final_fit_is_no_evidence_however_large_the_change() -> None:
    sides = simulated_sides({"a": 5.0}, keys=FIVE[:1])
    judged = verdict(compared(sides)["a"])
    assert judged.word == NO_EVIDENCE
    assert "each side has one independent final fit" in judged.because


def test_seeds_are_independent_only_if_there_is_a_single_fold() -> None:
    def independent(keys: list[tuple[int, int]]) -> int:
        return compared(simulated_sides({"a": 0.0}, keys=keys, sources=15))["a"].independent

    assert independent([(0, 1), (0, 2), (0, 3)]) == 3
    assert independent([(0, 1), (0, 2), (1, 1), (1, 2)]) == 2


def test_a_missing_class_is_no_evidence_and_named() -> None:
    def without_synthetic(table: pd.DataFrame) -> pd.DataFrame:
        return table[table["label"] == 0]

    sides = [
        alter(side, lambda fit: replace(fit, unseen=without_synthetic(fit.unseen)))
        for side in simulated_sides({"a": 0.0}, sources=15)
    ]
    found = compared(sides)["a"]
    assert math.isnan(found.differences["auc_unseen"].value)
    assert math.isnan(found.differences["auc_unseen"].p_adjusted)
    judged = verdict(found)
    assert judged.word == NO_EVIDENCE
    assert "AUC on unseen generators not defined" in judged.because
    assert "of AUC in-distribution cannot be detected" in judged.because


def test_tied_scores_are_no_evidence() -> None:
    baseline, _ = simulated_sides({"a": 0.0}, sources=15)
    tied = alter(
        baseline,
        lambda fit: replace(
            fit, seen=fit.seen.assign(logit=0.0), unseen=fit.unseen.assign(logit=0.0)
        ),
    )
    found = compared([tied, replace(tied, name="a")])["a"]
    assert found.differences["auc_seen"].baseline == 0.5
    assert verdict(found).word == NO_EVIDENCE
    assert verdict(compared([baseline, replace(tied, name="a")])["a"]).word == WORSE


# --- rules


@pytest.mark.parametrize(
    ("changes", "lost", "word"),
    [
        ([(0.1, 0.01), (0.0, 1.0)], 0, BETTER),
        ([(0.1, 0.05), (-0.2, 0.06)], 0, BETTER),
        ([(0.1, 0.051), (0.2, 1.0)], 0, NO_EVIDENCE),
        ([(-0.1, 0.01), (0.1, 0.001)], 0, WORSE),
        ([(-0.1, 0.01), (0.0, 1.0)], 2, WORSE),
        ([(0.1, 0.01), (0.1, 0.01)], 1, NO_EVIDENCE),
        ([(0.5, math.nan), (0.0, math.nan)], 0, NO_EVIDENCE),
        ([(math.nan, math.nan), (0.1, 0.01)], 0, BETTER),
    ],
)
def test_the_word_of_a_verdict(changes: list[tuple[float, float]], lost: int, word: str) -> None:
    assert word_for(changes, lost=lost, error=0.05) == word


def test_the_rules_in_words_have_their_thresholds() -> None:
    table = rules_table(Rules(error=0.1, gap=0.07, ece=0.03, cost=1.9)).set_index("verdict")["rule"]
    assert list(table.index) == [BETTER, WORSE, NO_EVIDENCE, *CRITERIA]
    assert "at most 0.1" in table[BETTER]
    assert "0.07" in table["overfits"]
    assert "0.03" in table["miscalibrated"]
    assert "1.9 times" in table["costly"]
    assert not table.str.contains(r"[{}]").any()


def test_the_thresholds_are_applied(sides: list[Side]) -> None:
    found = compared([sides[0], scaled(sides[3], seconds_per_image=1.5)])["focal"]
    assert verdict(found).criteria == ("costly",)
    assert verdict(found, replace(RULES, cost=1.7)).criteria == ()


# --- paper claims


def test_a_verdict_is_compared_with_the_paper_claim(sides: list[Side]) -> None:
    vague = replace(sides[3], name="vit")
    unmentioned = replace(sides[3], name="something else")
    table = verdict_table(compared([*sides, vague, unmentioned])).set_index("strategy")
    assert table["paper_against_verdict"].to_dict() == {
        "sgd": "contradicts the paper", "mixup": "agrees with the paper",
        "focal": "does not contradict the paper", "vit": "the paper does not say",
        "something else": "the paper does not say",
    }  # fmt: skip
    assert "reduced calibration stability" in table.loc["mixup", "paper"]
    assert "qualitative" in table.loc["vit", "paper"]
    assert table.loc["something else", "paper"] == "Not mentioned."


def test_paper_claims_name_known_criteria() -> None:
    assert all(set(claim.criteria) <= set(CRITERIA) for claim in PAPER_CLAIMS.values())


# --- error rates


@cache
def false_verdicts(trainings: int, sources: int, spread: float) -> dict[str, tuple[int, int]]:
    """Of 400 comparisons of equal strategies: those with any better, and with any verdict.

    By the method of the p-values.
    """
    return {
        method: (
            sum(BETTER in words for words in comparisons),
            sum(set(words) != {NO_EVIDENCE} for words in comparisons),
        )
        for method, comparisons in rounds(400, trainings, sources, spread).items()
    }


@pytest.mark.parametrize(
    ("trainings", "sources", "spread"),
    [(2, 20, 0.25), (3, 20, 0.05), (3, 30, 0.25), (5, 20, 0.6)],
)
def test_the_rate_of_false_verdicts_is_at_most_the_stated_one(
    trainings: int, sources: int, spread: float
) -> None:
    """Three strategies; 34 of 400 is three standard deviations above 5 %."""
    better, either = false_verdicts(trainings, sources, spread)["the rule"]
    assert better <= either <= 400 * RULES.error + 3 * math.sqrt(400 * 0.05 * 0.95) < 34


def test_the_bootstrap_of_photographs_alone_has_far_more_false_verdicts() -> None:
    assert false_verdicts(3, 30, 0.25)["photographs"][1] > 100


def test_a_truly_better_strategy_is_usually_detected() -> None:
    """AUC on unseen generators of 0.88 instead of 0.72; 60 photographs and five final fits."""
    comparisons = rounds(40, 5, 60, 0.05, gain=1.0)["the rule"]
    assert np.mean([words[0] == BETTER for words in comparisons]) > 0.9
    assert not any(words[0] == WORSE for words in comparisons)


def test_the_benchmarks_fast_estimates_agree_with_the_comparison() -> None:
    """Equal changes of AUC, and intervals that differ only by the bootstrap's randomness."""
    sides = simulated_sides({"a": 0.4}, sources=30, spread=0.1, seed=5)
    found = compare(sides[0], sides[1:], replicates=1000)["a"].differences
    rng = np.random.default_rng(5)
    logits = simulate(rng, 5, 30, spread=0.1, gains=[0.4])
    draws = rng.multinomial(30, np.full(30, 1 / 30), size=1000)
    (quick,) = estimates(auc_draws(logits, draws), 30)
    for mean, name in zip(quick, ("auc_seen", "auc_unseen"), strict=True):
        assert mean.value == pytest.approx(found[name].value, abs=1e-12)
        low, high = mean.interval(0.95)
        width = found[name].high - found[name].low
        assert high - low == pytest.approx(width, rel=0.1)

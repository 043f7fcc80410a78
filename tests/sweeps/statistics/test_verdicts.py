"""Planted cases are judged right, and null ones are called different no oftener than claimed."""

import math
from dataclasses import replace
from functools import cache

import numpy as np
import pandas as pd
import pytest

from benchmarks.verdicts import auc_draws, estimates, rounds, simulate
from sweeps.statistics.comparison import Comparison, compare
from sweeps.statistics.final_fits import Side
from sweeps.statistics.paper import CLAIMS
from sweeps.statistics.verdicts import (
    BETTER,
    NO_EVIDENCE,
    RESPECTS,
    RULES,
    WORSE,
    Rules,
    rules_table,
    verdict,
    verdict_table,
    word_for,
)
from tests.sweeps.conftest import made_up

FIVE = [(fold, 40 + fold) for fold in range(5)]


def judged(sides: list[Side]) -> dict[str, Comparison]:
    return compare(sides[0], sides[1:], replicates=200)


@pytest.fixture(scope="module")
def planted() -> list[Side]:
    """One truly better, one truly worse, one equal."""
    return made_up({"sgd": 1.2, "mixup": -0.9, "focal": 0.0}, spread=0.05, seed=1)


def changed(side: Side, **factors: float) -> Side:
    """The side with columns of its trainings multiplied."""
    return replace(
        side,
        trainings=tuple(
            replace(t, **{name: getattr(t, name) * factor for name, factor in factors.items()})
            for t in side.trainings
        ),
    )


# --- planted cases


def test_the_truly_better_worse_and_equal_are_called_so(planted: list[Side]) -> None:
    words = {name: verdict(c).word for name, c in judged(planted).items()}
    assert words == {"sgd": BETTER, "mixup": WORSE, "focal": NO_EVIDENCE}


@pytest.mark.parametrize("seed", range(3))
def test_a_strategy_that_is_the_baseline_with_other_luck(seed: int) -> None:
    found = judged(made_up({"focal": 0.0}, seed=seed, sources=25, places=FIVE[:3]))["focal"]
    said = verdict(found)
    assert said.word == NO_EVIDENCE
    assert said.because.startswith("no evidence of a difference; AUC in-distribution")
    half = found.differences["auc_unseen"].detectable
    assert f"{half:.3f} of AUC on unseen generators could not be told from none" in said.because


def test_each_respect_is_found_where_it_was_planted_and_nowhere_else() -> None:
    sides = made_up(dict.fromkeys(["a", "b", "c", "d", "e"], 0.0), sources=25)
    baseline, a, b, c, d, e = sides
    overfit = changed(a, val_auc=0.9)
    costly = changed(b, seconds_per_image=1.4)
    hungry = changed(c, peak_mib=1.3)
    shifted = replace(
        d,
        trainings=tuple(
            replace(t, seen=t.seen.assign(logit=t.seen["logit"] + 3)) for t in d.trainings
        ),
    )
    failing = replace(e, failed_trials=9)
    found = compare(baseline, [overfit, costly, hungry, shifted, failing], replicates=200)
    assert {name: verdict(one).criteria for name, one in found.items()} == {
        "a": ("overfits",), "b": ("costly",), "c": ("costly",), "d": ("miscalibrated",),
        "e": ("unstable",),
    }  # fmt: skip
    assert "costly: training time per image times 1." in verdict(found["b"]).because
    assert {verdict(one).word for one in found.values()} == {NO_EVIDENCE}


def test_what_calibration_on_validation_repairs_is_miscalibrated_all_the_same() -> None:
    baseline, strategy = made_up({"mixup": 0.0}, sources=25)
    squeezed = tuple(
        replace(t, seen=t.seen.assign(raw_logit=t.seen["raw_logit"] * 4 + 3))
        for t in strategy.trainings
    )
    said = verdict(judged([baseline, replace(strategy, trainings=squeezed)])["mixup"])
    assert (said.word, said.criteria) == (NO_EVIDENCE, ("miscalibrated",))
    assert "miscalibrated: ECE before calibration in-distribution" in said.because


def test_a_cost_that_one_training_alone_has_is_no_evidence() -> None:
    baseline, strategy = made_up({"a": 0.0}, sources=15)
    first, *others = strategy.trainings
    slow = replace(strategy, trainings=(replace(first, seconds_per_image=0.1), *others))
    found = judged([baseline, slow])["a"]
    assert found.differences["seconds"].value > RULES.cost
    assert verdict(found).criteria == ()


def test_a_peak_of_no_memory_is_unknown() -> None:
    baseline, strategy = made_up({"a": 0.0}, sources=15)
    unknown = changed(strategy, peak_mib=0.0)
    found = judged([baseline, unknown])["a"]
    assert math.isnan(found.differences["memory"].value)
    assert verdict(found).criteria == ()


def test_a_spread_over_trainings_that_has_grown_is_unstable() -> None:
    """Results of the unstable strategy go from random to perfect, fold by fold."""
    (baseline, strategy) = made_up({"a": 0.0}, sources=25)
    wild = tuple(
        replace(t, seen=t.seen.assign(logit=t.seen["logit"] + shift * t.seen["label"]))
        for t, shift in zip(strategy.trainings, (-2.0, -1.5, 0.0, 2.0, 4.0), strict=True)
    )
    said = verdict(judged([baseline, replace(strategy, trainings=wild)])["a"])
    assert (said.word, said.criteria) == (NO_EVIDENCE, ("unstable",))
    assert "unstable: spread of AUC in-distribution times" in said.because


def test_a_strategy_that_loses_a_training_is_unstable_and_not_better(planted: list[Side]) -> None:
    baseline, better, *others = planted
    lost = replace(better, trainings=better.trainings[1:], lost=(better.trainings[0].place,))
    said = verdict(judged([baseline, lost, *others])["sgd"])
    assert (said.word, said.criteria[0]) == (NO_EVIDENCE, "unstable")
    assert said.because.startswith("better only in the trainings that came to their end")
    assert "1 of 5 final trainings lost" in said.because


def test_a_strategy_that_lost_everything() -> None:
    baseline, strategy = made_up({"a": 0.0}, sources=15)
    places = tuple(t.place for t in strategy.trainings)
    said = verdict(judged([baseline, replace(strategy, trainings=(), lost=places)])["a"])
    assert (said.word, said.criteria) == (NO_EVIDENCE, ("unstable",))
    assert "no final training came to its end" in said.because
    assert "5 of 5 final trainings lost" in said.because


def test_trainings_that_the_baseline_lost_are_said() -> None:
    baseline, strategy = made_up({"a": 0.0}, sources=15)
    less = replace(baseline, trainings=baseline.trainings[1:], lost=(FIVE[0],))
    assert "the baseline lost 1 final trainings" in verdict(judged([less, strategy])["a"]).because


# --- what cannot be known


def test_one_training_is_no_evidence_however_large_the_change() -> None:
    sides = made_up({"a": 5.0}, places=FIVE[:1])
    said = verdict(judged(sides)["a"])
    assert said.word == NO_EVIDENCE
    assert "one independent training a side" in said.because


def test_several_seeds_of_one_fold_count_but_several_seeds_of_two_folds_as_two() -> None:
    def independent(places: list[tuple[int, int]]) -> int:
        return judged(made_up({"a": 0.0}, places=places, sources=15))["a"].independent

    assert independent([(0, 1), (0, 2), (0, 3)]) == 3
    assert independent([(0, 1), (0, 2), (1, 1), (1, 2)]) == 2


def test_a_missing_class_is_no_evidence_and_said_so() -> None:
    def without_synthetic(table: pd.DataFrame) -> pd.DataFrame:
        return table[table["label"] == 0]

    sides = [
        replace(
            side,
            trainings=tuple(replace(t, unseen=without_synthetic(t.unseen)) for t in side.trainings),
        )
        for side in made_up({"a": 0.0}, sources=15)
    ]
    found = judged(sides)["a"]
    assert math.isnan(found.differences["auc_unseen"].value)
    assert math.isnan(found.differences["auc_unseen"].p_adjusted)
    said = verdict(found)
    assert said.word == NO_EVIDENCE
    assert "AUC on unseen generators not defined" in said.because
    assert "of AUC in-distribution could not be told" in said.because


def test_scores_that_are_all_tied_are_no_evidence() -> None:
    baseline, _ = made_up({"a": 0.0}, sources=15)
    flat = changed(baseline)
    tied = replace(
        flat,
        trainings=tuple(
            replace(t, seen=t.seen.assign(logit=0.0), unseen=t.unseen.assign(logit=0.0))
            for t in flat.trainings
        ),
    )
    found = judged([tied, replace(tied, name="a")])["a"]
    assert found.differences["auc_seen"].baseline == 0.5
    assert verdict(found).word == NO_EVIDENCE
    assert verdict(judged([baseline, replace(tied, name="a")])["a"]).word == WORSE


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
def test_words(changes: list[tuple[float, float]], lost: int, word: str) -> None:
    assert word_for(changes, lost=lost, error=0.05) == word


def test_the_rules_in_words_have_their_thresholds() -> None:
    table = rules_table(Rules(error=0.1, gap=0.07, ece=0.03, cost=1.9)).set_index("verdict")["rule"]
    assert list(table.index) == [BETTER, WORSE, NO_EVIDENCE, *RESPECTS]
    assert "at most 0.1" in table[BETTER]
    assert "0.07" in table["overfits"]
    assert "0.03" in table["miscalibrated"]
    assert "1.9 times" in table["costly"]
    assert not table.str.contains(r"[{}]").any()


def test_the_thresholds_are_what_is_applied(planted: list[Side]) -> None:
    found = judged([planted[0], changed(planted[3], seconds_per_image=1.5)])["focal"]
    assert verdict(found).criteria == ("costly",)
    assert verdict(found, replace(RULES, cost=1.7)).criteria == ()


# --- beside the paper


def test_the_verdict_stands_beside_the_papers_claim(planted: list[Side]) -> None:
    other = replace(planted[3], name="vit")
    odd = replace(planted[3], name="something else")
    table = verdict_table(judged([*planted, other, odd])).set_index("strategy")
    assert table["paper_against_verdict"].to_dict() == {
        "sgd": "contradicts the paper", "mixup": "agrees with the paper",
        "focal": "does not contradict the paper", "vit": "the paper does not say",
        "something else": "the paper does not say",
    }  # fmt: skip
    assert "reduced calibration stability" in table.loc["mixup", "paper"]
    assert "qualitative" in table.loc["vit", "paper"]
    assert table.loc["something else", "paper"] == "Not mentioned."


def test_claims_name_the_verdicts_respects() -> None:
    assert all(set(claim.criteria) <= set(RESPECTS) for claim in CLAIMS.values())


# --- error rates


@cache
def false_verdicts(trainings: int, sources: int, spread: float) -> dict[str, tuple[int, int]]:
    """By way to p-values, of 400 null comparisons: with any called better, and better or worse."""
    return {
        way: (
            sum(BETTER in words for words in said),
            sum(set(words) != {NO_EVIDENCE} for words in said),
        )
        for way, said in rounds(400, trainings, sources, spread).items()
    }


@pytest.mark.parametrize(
    ("trainings", "sources", "spread"),
    [(2, 20, 0.25), (3, 20, 0.05), (3, 30, 0.25), (5, 20, 0.6)],
)
def test_equal_strategies_are_called_different_no_oftener_than_claimed(
    trainings: int, sources: int, spread: float
) -> None:
    """Of three strategies; below 34 of 400 is within three deviations of 5 %."""
    better, either = false_verdicts(trainings, sources, spread)["the rule"]
    assert better <= either <= 400 * RULES.error + 3 * math.sqrt(400 * 0.05 * 0.95) < 34


def test_the_bootstrap_by_photograph_alone_would_be_wrong_far_oftener() -> None:
    assert false_verdicts(3, 30, 0.25)["photographs"][1] > 100


def test_a_truly_better_strategy_is_found_most_of_the_time() -> None:
    """Its AUC on unseen generators is .88 rather than .72; 60 photographs, five trainings."""
    said = rounds(40, 5, 60, 0.05, gain=1.0)["the rule"]
    assert np.mean([words[0] == BETTER for words in said]) > 0.9
    assert not any(words[0] == WORSE for words in said)


def test_the_quick_computation_behind_the_error_rates_is_the_real_one() -> None:
    """The same change of AUC, and standard errors as alike as 200 and 1000 draws allow."""
    sides = made_up({"a": 0.4}, sources=30, spread=0.1, seed=5)
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

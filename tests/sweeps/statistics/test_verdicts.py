"""Simulated differences are judged correctly, and equal strategies at the stated error rate."""

import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from benchmarks.verdicts import (
    COMMON,
    GAIN,
    Case,
    auc_draws,
    errors,
    false_differences,
    power,
    simulate,
    simulate_estimates,
    simulate_scores,
    words,
)
from sweeps.statistics.comparison import Comparison, compare
from sweeps.statistics.final_fits import Side
from sweeps.statistics.paper import PAPER_CLAIMS
from sweeps.statistics.verdicts import (
    BETTER,
    CRITERIA,
    EQUIVALENT,
    INCONCLUSIVE,
    NOT_BETTER,
    RULES,
    WORDS,
    WORSE,
    Rules,
    rules_table,
    verdict,
    verdict_table,
    word_for,
)
from synthdetect.evaluation.estimates import Mean
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
    assert words == {"sgd": BETTER, "mixup": WORSE, "focal": INCONCLUSIVE}


@pytest.mark.parametrize("seed", range(3))
def test_an_equal_strategy_is_inconclusive_with_the_detectable_change(seed: int) -> None:
    found = compared(simulated_sides({"focal": 0.0}, seed=seed, sources=25, keys=FIVE[:3]))["focal"]
    judged = verdict(found)
    assert judged.word == INCONCLUSIVE
    assert judged.because.startswith("AUC on unseen generators ")
    half = found.differences["auc_unseen"].detectable
    assert f"changes below {half:.3f} cannot be detected" in judged.because


def test_a_strategy_that_changes_less_than_the_smallest_effect_is_equivalent() -> None:
    """With a smallest effect of .2 the changes are shown to be smaller; with .02 they are not."""
    sides = simulated_sides({"focal": 0.0, "sgd": 0.4, "mixup": -0.5}, spread=0.05, seed=1)
    rules = replace(RULES, smallest_effect=0.2)
    found = compare(sides[0], sides[1:], replicates=200, smallest_effect=0.2)
    judged = {name: verdict(one, rules) for name, one in found.items()}
    assert {one.word for one in judged.values()} == {EQUIVALENT}
    assert found["sgd"].differences["auc_unseen"].p_adjusted < 0.05, "significant, but small"
    assert judged["sgd"].because.startswith("higher, but by less than the smallest effect")
    assert judged["mixup"].because.startswith("lower, but by less than the smallest effect")
    assert judged["focal"].because.startswith("AUC on unseen generators")
    assert EQUIVALENT not in {verdict(one).word for one in compared(sides).values()}


def test_a_strategy_that_can_only_be_lower_is_not_better() -> None:
    """Its change is from about none to far below: neither equivalent nor, for sure, worse."""
    sides = simulated_sides({"mixup": -0.25}, sources=25, spread=0.05, seed=2)
    found = compare(sides[0], sides[1:], replicates=200, smallest_effect=0.1)["mixup"]
    judged = verdict(found, replace(RULES, smallest_effect=0.1))
    assert (judged.word, found.p_equivalent > 0.05) == (NOT_BETTER, True)
    assert f"against +0.1 alone, {found.p_not_better:.2g}" in judged.because


def test_p_values_of_equivalence_are_those_of_two_one_sided_tests() -> None:
    """By hand, with one strategy: t tests against either margin, as if photographs did not vary."""
    sides = simulated_sides({"a": 0.1}, sources=20, spread=0.02)
    found = compare(sides[0], sides[1:], replicates=200, smallest_effect=0.15)["a"]
    change, low, high = (
        getattr(found.differences["auc_unseen"], name) for name in ("value", "low", "high")
    )
    assert low < change < high
    mean = Mean(change, _parts(found))
    assert (mean.interval(0.95)) == pytest.approx((low, high))
    # At level 1 - 2p the interval just reaches a margin.
    assert mean.interval(1 - 2 * found.p_not_better)[1] == pytest.approx(0.15)
    bounds = mean.interval(1 - 2 * found.p_equivalent)
    assert min(0.15 - bounds[1], 0.15 + bounds[0]) == pytest.approx(0, abs=1e-9)


def _parts(found: Comparison) -> tuple[tuple[float, float], ...]:
    sources, components = found.sources["unseen"], found.components
    return (
        (components.training**2 / found.fits, found.fits - 1),
        (components.photographs**2 / sources, sources - 1),
    )


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
    assert {verdict(one).word for one in found.values()} == {INCONCLUSIVE}


def test_a_strategy_that_calibration_repairs_is_miscalibrated_too() -> None:
    baseline, strategy = simulated_sides({"mixup": 0.0}, sources=25)
    stretched = alter(
        strategy,
        lambda fit: replace(fit, seen=fit.seen.assign(raw_logit=fit.seen["raw_logit"] * 4 + 3)),
    )
    judged = verdict(compared([baseline, stretched])["mixup"])
    assert (judged.word, judged.criteria) == (INCONCLUSIVE, ("miscalibrated",))
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
    assert (judged.word, judged.criteria) == (INCONCLUSIVE, ("unstable",))
    assert "unstable: spread of AUC in-distribution times" in judged.because


def test_a_strategy_that_lost_a_final_fit_is_unstable_and_not_better(sides: list[Side]) -> None:
    baseline, better, *others = sides
    lost = replace(better, fits=better.fits[1:], lost=(better.fits[0].key,))
    judged = verdict(compared([baseline, lost, *others])["sgd"])
    assert (judged.word, judged.criteria[0]) == (INCONCLUSIVE, "unstable")
    assert judged.because.startswith("better only in the final fits that were completed")
    assert verdict(compared([baseline, better, *others])["sgd"]).word == BETTER
    assert "1 of 5 final fits lost" in judged.because


def test_a_strategy_that_lost_all_final_fits() -> None:
    baseline, strategy = simulated_sides({"a": 0.0}, sources=15)
    lost = tuple(fit.key for fit in strategy.fits)
    judged = verdict(compared([baseline, replace(strategy, fits=(), lost=lost)])["a"])
    assert (judged.word, judged.criteria) == (INCONCLUSIVE, ("unstable",))
    assert "no final fit was completed" in judged.because
    assert "5 of 5 final fits lost" in judged.because


def test_final_fits_that_the_baseline_lost_are_counted() -> None:
    baseline, strategy = simulated_sides({"a": 0.0}, sources=15)
    less = replace(baseline, fits=baseline.fits[1:], lost=(FIVE[0],))
    assert "the baseline lost 1 final fits" in verdict(compared([less, strategy])["a"]).because


# --- too few data


def test_one_final_fit_is_inconclusive_however_large_the_change() -> None:
    sides = simulated_sides({"a": 5.0}, keys=FIVE[:1])
    judged = verdict(compared(sides)["a"])
    assert judged.word == INCONCLUSIVE
    assert "each side has one final fit" in judged.because


def test_a_missing_class_is_inconclusive_and_named() -> None:
    def without_synthetic(table: pd.DataFrame) -> pd.DataFrame:
        return table[table["label"] == 0]

    sides = [
        alter(
            side,
            lambda fit: replace(
                fit, seen=without_synthetic(fit.seen), unseen=without_synthetic(fit.unseen)
            ),
        )
        for side in simulated_sides({"a": 0.0}, sources=15)
    ]
    found = compared(sides)["a"]
    assert math.isnan(found.differences["auc_seen"].value)
    assert math.isnan(found.differences["auc_seen"].p_adjusted)
    judged = verdict(found)
    assert judged.word == INCONCLUSIVE
    assert "AUC in-distribution not defined" in judged.because
    assert "only 0 test photographs of one of the classes" in judged.because


def test_the_same_scores_in_every_fit_are_equivalent() -> None:
    baseline, _ = simulated_sides({"a": 0.0}, sources=15)
    tied = alter(
        baseline,
        lambda fit: replace(
            fit, seen=fit.seen.assign(logit=0.0), unseen=fit.unseen.assign(logit=0.0)
        ),
    )
    found = compared([tied, replace(tied, name="a")])["a"]
    assert found.differences["auc_seen"].baseline == 0.5
    assert verdict(found).word == EQUIVALENT
    assert verdict(compared([baseline, replace(tied, name="a")])["a"]).word == WORSE


# --- rules


@pytest.mark.parametrize(
    ("value", "p", "p_equivalent", "p_not_better", "lost", "word"),
    [
        (0.1, 0.01, 1.0, 1.0, 0, BETTER),
        (0.1, 0.05, 1.0, 1.0, 0, BETTER),
        (0.1, 0.051, 1.0, 1.0, 0, INCONCLUSIVE),
        (0.1, 0.01, 1.0, 1.0, 1, INCONCLUSIVE),
        (-0.1, 0.01, 1.0, 0.001, 0, WORSE),
        (-0.1, 0.01, 1.0, 0.001, 2, WORSE),
        (0.0, 1.0, 0.04, 0.03, 0, EQUIVALENT),
        (0.0, 1.0, 0.04, 0.03, 1, NOT_BETTER),
        (0.01, 0.01, 0.02, 0.02, 0, EQUIVALENT),
        (-0.01, 0.01, 0.02, 0.001, 0, EQUIVALENT),
        (-0.01, 0.01, 0.02, 0.001, 1, WORSE),
        (-0.02, 0.2, 0.5, 0.05, 0, NOT_BETTER),
        (-0.02, 0.2, 0.5, 0.06, 0, INCONCLUSIVE),
        (0.5, math.nan, math.nan, math.nan, 0, INCONCLUSIVE),
    ],
)
def test_the_word_of_a_verdict(
    value: float, p: float, p_equivalent: float, p_not_better: float, lost: int, word: str
) -> None:
    assert word_for(value, p, p_equivalent, p_not_better, lost=lost, error=0.05) == word


def test_the_rules_in_words_have_their_thresholds() -> None:
    table = rules_table(Rules(error=0.1, gap=0.07, ece=0.03, cost=1.9)).set_index("verdict")["rule"]
    assert list(table.index) == [*WORDS, *CRITERIA]
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
    assert table["paper_mark"].to_dict() == {
        "sgd": "contradicted", "mixup": "supported", "focal": "undecided",
        "vit": "the paper does not say", "something else": "the paper does not say",
    }  # fmt: skip
    assert "reduced calibration stability" in table.loc["mixup", "paper"]
    assert "qualitative" in table.loc["vit", "paper"]
    assert table.loc["something else", "paper"] == "Not mentioned."


@pytest.mark.parametrize(
    ("p_equivalent", "p_not_better", "mark"),
    [(0.01, 0.01, "supported"), (0.9, 0.01, "supported"), (0.9, 0.9, "undecided")],
)
def test_only_a_test_of_equivalence_or_non_superiority_supports_no_improvement(
    sides: list[Side], p_equivalent: float, p_not_better: float, mark: str
) -> None:
    found = compared([sides[0], sides[3]])["focal"]
    tested = replace(found, p_equivalent=p_equivalent, p_not_better=p_not_better)
    assert verdict_table({"focal": tested})["paper_mark"].tolist() == [mark]


def test_paper_claims_name_known_criteria() -> None:
    assert all(set(claim.criteria) <= set(CRITERIA) for claim in PAPER_CLAIMS.values())


# --- error rates


@pytest.mark.parametrize(
    "case",
    [Case(3, 3, 20), Case(3, 5, 27, unlike=True), Case(3, 10, 60), Case(14, 5, 27),
     Case(14, 10, 27, unlike=True)],
)  # fmt: skip
def test_the_rate_of_each_wrong_verdict_is_at_most_the_stated_one(case: Case) -> None:
    """34 of 400 is three standard deviations above 5 %."""
    found = simulate_estimates(np.random.default_rng(1), 400, case)
    limit = RULES.error + 3 * math.sqrt(0.05 * 0.95 / 400)
    assert max(errors(found).values()) <= limit


def test_equal_strategies_have_no_false_verdicts_on_scores() -> None:
    found = simulate_scores(np.random.default_rng(1), 100, Case(3, 10, 27))
    assert max(errors(found).values()) <= RULES.error + 3 * math.sqrt(0.05 * 0.95 / 100)


def test_other_methods_have_more_false_differences() -> None:
    found = simulate_estimates(np.random.default_rng(1), 400, Case(3, 3, 150))
    assert false_differences(found, "photographs alone") > 0.15


def test_a_common_start_of_all_final_fits_has_more_false_verdicts() -> None:
    """What the seeds are for: the variance between fits does not show what they have in common."""
    case = Case(3, 10, 150, common=COMMON)
    assert errors(simulate_estimates(np.random.default_rng(1), 400, case))[BETTER] > 0.1


def test_a_truly_better_strategy_is_usually_detected() -> None:
    """AUC on unseen generators of 0.88 instead of 0.72, among 14 strategies and few photographs."""
    found = simulate_scores(np.random.default_rng(1), 20, Case(14, 10, 27), GAIN)
    judged = words(found.values, found.parts)
    assert np.mean([row[0] == BETTER for row in judged]) >= 0.8
    assert power(found, 0.0) == np.mean([row[0] == BETTER for row in judged])
    assert not any(row[0] == WORSE for row in judged)


def test_the_benchmarks_fast_estimates_agree_with_the_comparison() -> None:
    """Equal changes of AUC, and intervals that differ only by the bootstrap's randomness."""
    sides = simulated_sides({"a": 0.4}, sources=30, spread=0.1, seed=5)
    found = compare(sides[0], sides[1:], replicates=1000)["a"].differences
    rng = np.random.default_rng(5)
    logits = simulate(rng, 5, 30, spread=0.1, gains=[0.4])
    draws = rng.multinomial(30, np.full(30, 1 / 30), size=1000)
    for part, name in enumerate(("auc_seen", "auc_unseen")):
        aucs = auc_draws(logits, draws, part)
        mean = Mean.of((aucs[1:] - aucs[:1])[0], range(5), 30)
        assert mean.value == pytest.approx(found[name].value, abs=1e-12)
        low, high = mean.interval(0.95)
        width = found[name].high - found[name].low
        assert high - low == pytest.approx(width, rel=0.1)

"""Intervals and p-values against hand calculations, published examples and simulations."""

import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from synthdetect.evaluation.estimates import (
    LEAST_P,
    Mean,
    Shares,
    Spread,
    holm,
    independent_sources,
    per_unit,
)
from synthdetect.system.arrays import FloatArray

# --- means


def test_a_mean_without_sources_is_students_t_test() -> None:
    changes = np.array([[0.01], [0.03], [0.02], [0.05]])
    mean = Mean.of(changes, [0, 1, 2, 3])
    theirs = stats.ttest_1samp(changes[:, 0], 0)
    assert mean.value == pytest.approx(0.0275)
    assert mean.p_value() == pytest.approx(theirs.pvalue)
    assert mean.interval(0.95) == pytest.approx(tuple(theirs.confidence_interval(0.95)))


def test_an_interval_of_two_components_by_hand() -> None:
    """t is 12.706 on one degree of freedom and 2.0010 on 60, both for 95 %."""
    mean = Mean(0.5, ((0.0004, 1), (0.01, 60)))
    half = math.sqrt(0.0004 * 12.70620474**2 + 0.01 * 2.00029782**2)
    assert mean.interval(0.95) == pytest.approx((0.5 - half, 0.5 + half), rel=1e-6)


@pytest.mark.parametrize("value", [0.001, 0.1, -0.2, 0.7])
def test_the_p_value_is_where_the_interval_reaches_zero(value: float) -> None:
    mean = Mean(value, ((0.0004, 2), (0.003, 40)))
    low, high = mean.interval(1 - mean.p_value())
    assert min(abs(low), abs(high)) == pytest.approx(0, abs=1e-9)


def test_the_parts_are_the_variances_of_trainings_and_of_draws() -> None:
    rng = np.random.default_rng(0)
    changes = rng.normal(size=(4, 501))
    (trained, few), (drawn, many) = Mean.of(changes, range(4), sources=11).parts
    assert (few, many) == (3, 10)
    assert trained == pytest.approx(changes[:, 0].var(ddof=1) / 4)
    assert drawn == pytest.approx(changes[:, 1:].mean(axis=0).var(ddof=1) * 11 / 10)


def test_replicates_without_one_class_are_left_out() -> None:
    changes = np.array([[0.1, 0.0, np.nan, 0.2], [0.2, 0.2, np.nan, 0.4]])
    (_, (variance, _)) = Mean.of(changes, [0, 1], sources=3).parts
    assert variance == pytest.approx(np.var([0.1, 0.3], ddof=1) * 3 / 2)


def test_trainings_of_one_fold_count_once() -> None:
    changes = np.array([[0.1], [0.3], [0.5], [0.7]])
    assert per_unit(changes, [1, 1, 2, 2]).tolist() == [[0.2], [0.6]]
    assert Mean.of(changes, [1, 1, 2, 2]).parts[0][1] == 1
    assert Mean.of(changes, [1, 1, 1, 1]).parts[0][1] == 3  # one fold: seeds count


@pytest.mark.parametrize(
    "mean",
    [
        Mean.of(np.array([[0.3, 0.2, 0.4]]), [0], sources=50),  # one training
        Mean.of(np.array([[0.3, 0.2, 0.4]] * 3), range(3), sources=1),  # one photograph
        Mean.of(np.full((3, 4), np.nan), range(3), sources=9),  # a class is missing
        Mean.of(np.full((3, 4), 0.1), range(3), sources=0),
    ],
)
def test_what_cannot_be_estimated_is_nan(mean: Mean) -> None:
    assert math.isnan(mean.p_value())
    assert all(math.isnan(bound) for bound in mean.interval(0.95))


def test_without_any_variance() -> None:
    none = Mean.of(np.zeros((3, 10)), range(3), sources=9)
    assert none.p_value() == 1.0
    assert none.interval(0.95) == (0.0, 0.0)
    assert Mean.of(np.full((3, 10), 0.1), range(3), sources=9).p_value() == LEAST_P


@pytest.mark.parametrize("trainings", [2, 3, 5])
@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.9, 1.0])
def test_a_mean_covers_the_truth_for_every_share_of_variance_between_trainings(
    trainings: int, share: float
) -> None:
    """Coverage of Banerjee's interval at 95 % and at the levels of a multiple-test correction."""
    rng = np.random.default_rng([trainings, round(10 * share)])
    cases, freedoms = 20_000, (trainings - 1, 30)
    variances = np.array([[share], [1 - share]]) * np.stack(
        [rng.chisquare(f, cases) / f for f in freedoms]
    )
    values = rng.normal(size=cases)
    for error in (0.05, 0.005):
        half_squared = sum(
            variance * stats.t.isf(error / 2, f) ** 2
            for variance, f in zip(variances, freedoms, strict=True)
        )
        missed = (values**2 > half_squared).mean()
        assert missed <= error + 3 * math.sqrt(error * (1 - error) / cases)
        if share in (0.0, 1.0):
            assert missed == pytest.approx(error, abs=3 * math.sqrt(error / cases))
    one = Mean(values[0], tuple(zip(variances[:, 0], freedoms, strict=True)))
    assert one.interval(0.995)[1] - one.value == pytest.approx(math.sqrt(half_squared[0]))


# --- spreads


def test_the_test_of_spreads_has_its_error_rate_and_power() -> None:
    rng = np.random.default_rng(0)
    pairs = rng.multivariate_normal([0, 0], [[1, 0.6], [0.6, 1]], size=(2000, 5))
    same = [Spread.of(x, y).p_value() <= 0.05 for x, y in pairs.transpose(0, 2, 1)]
    assert np.mean(same) == pytest.approx(0.05, abs=0.015)
    wild = [Spread.of(6 * x, y).p_value() <= 0.05 for x, y in pairs[:500].transpose(0, 2, 1)]
    assert np.mean(wild) > 0.7


def test_a_spread_is_pitmans_and_morgans() -> None:
    """The same as the correlation of sums and differences."""
    x, y = np.array([0.1, 0.5, 0.9, 0.3]), np.array([0.2, 0.4, 0.45, 0.35])
    spread = Spread.of(x, y)
    assert spread.value == pytest.approx(np.log(x.std() / y.std()))
    assert spread.p_value() == pytest.approx(stats.pearsonr(x + y, x - y).pvalue)
    low, _ = spread.interval(1 - spread.p_value())
    assert low == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize(("x", "y"), [([1, 2], [2, 4]), ([1, 1, 1], [1, 2, 3]), ([1], [2])])
def test_spreads_of_too_few_or_equal_results_are_nan(x: list[float], y: list[float]) -> None:
    spread = Spread.of(np.array(x, dtype=float), np.array(y, dtype=float))
    assert math.isnan(spread.p_value())
    assert all(math.isnan(bound) for bound in spread.interval(0.95))


# --- sources


@pytest.mark.parametrize("index", [range(5), [7, 3, 9, 1, 5]])
def test_sources_are_counted_in_the_class_that_has_fewer(index: list[int]) -> None:
    table = pd.DataFrame({"label": [0, 0, 0, 1, 1], "source_id": ["a", "b", "c", "a", "a"]}, index)
    assert independent_sources(table) == 1
    assert independent_sources(table.assign(source_id=["a", "a", "c", "d", "e"])) == 2
    assert independent_sources(table[table["label"] == 0]) == 0


# --- shares


def test_shares_by_newcombes_example() -> None:
    """56 of 70 against 48 of 80: 0.2000, 0.0524 to 0.3339 (his Table II, method 10)."""
    shares = Shares((56, 70), (48, 80))
    assert shares.value == pytest.approx(0.2)
    assert shares.interval(0.95) == pytest.approx((0.0524, 0.3339), abs=5e-5)


def test_shares_are_tested_by_fishers_exact_test() -> None:
    """The lady tasting tea: 3 of 4 against 1 of 4."""
    assert Shares((3, 4), (1, 4)).p_value() == pytest.approx(34 / 70)
    assert math.isnan(Shares((0, 0), (1, 4)).p_value())
    assert math.isnan(Shares((0, 0), (1, 4)).interval(0.95)[0])


# --- Holm


def test_holm_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]).tolist() == pytest.approx([0.03, 0.06, 0.06, 0.02])


def test_holm_never_lowers_a_p_value_and_keeps_their_order() -> None:
    p: FloatArray = np.random.default_rng(0).random(30) ** 3
    adjusted = holm(p)
    assert (adjusted >= p).all()
    assert (adjusted <= 1).all()
    assert (np.diff(adjusted[np.argsort(p)]) >= 0).all()
    shuffled = np.random.default_rng(1).permutation(30)
    assert (holm(p[shuffled]) == adjusted[shuffled]).all()


def test_holm_counts_undefined_p_values_as_tests() -> None:
    assert holm([0.02, np.nan, 0.01]) == pytest.approx([0.04, np.nan, 0.03], nan_ok=True)
    assert holm([0.02]).tolist() == [0.02]
    assert holm([0.9, 0.8]).tolist() == [1.0, 1.0]

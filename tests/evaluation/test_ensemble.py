"""Ensembles: every combination and measure of agreement against hand calculations."""

import math

import numpy as np
import pytest
from scipy.special import expit, logit

from synthdetect.evaluation.ensemble import agreement, combine, log_odds, spread
from synthdetect.evaluation.options import ENSEMBLES

LOGITS = np.array([[0.0, 2.0, -3.0, 40.0], [1.0, -1.0, -2.0, 50.0], [5.0, 0.0, -1.0, 60.0]])
THRESHOLDS = np.array([0.5, 0.6, 0.9])


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def log_odds_of(p: float) -> float:
    return math.log(p / (1 - p))


def test_the_mean_of_logits() -> None:
    probability, threshold = combine("mean_logit", LOGITS, THRESHOLDS)
    np.testing.assert_allclose(probability, [sigmoid(2), sigmoid(1 / 3), sigmoid(-2), 1.0])
    assert threshold == pytest.approx(sigmoid((0 + log_odds_of(0.6) + log_odds_of(0.9)) / 3))


def test_the_mean_of_probabilities() -> None:
    probability, threshold = combine("mean_probability", LOGITS, THRESHOLDS)
    assert probability[0] == pytest.approx((0.5 + sigmoid(1) + sigmoid(5)) / 3)
    assert threshold == pytest.approx(2 / 3)


def test_the_median_is_of_logits() -> None:
    probability, threshold = combine("median", LOGITS, THRESHOLDS)
    np.testing.assert_allclose(probability, [sigmoid(1), 0.5, sigmoid(-2), 1.0])
    assert threshold == pytest.approx(0.6)
    probability, threshold = combine("median", LOGITS[:2], THRESHOLDS[:2])
    assert probability[0] == pytest.approx(sigmoid(0.5))
    assert threshold == pytest.approx(sigmoid(log_odds_of(0.6) / 2))


def test_a_vote_asks_each_model_with_its_own_threshold() -> None:
    probability, threshold = combine("vote", LOGITS, THRESHOLDS)
    # 0 >= logit(.5); 1 >= logit(.6) = .41; 5 >= logit(.9) = 2.2. Then 2 and -1 and 0.
    np.testing.assert_allclose(probability, [1, 1 / 3, 0, 1])
    assert threshold == 0.5


@pytest.mark.parametrize("name", ENSEMBLES)
def test_a_single_model_passes_through_exactly(name: str) -> None:
    threshold = 0.1 + 0.2  # one that the way to log-odds and back would change
    probability, combined = combine(name, LOGITS[:1], np.array([threshold]))
    np.testing.assert_array_equal(probability, expit(LOGITS[0]))
    assert combined == threshold
    np.testing.assert_array_equal(log_odds(name, LOGITS[:1], probability), LOGITS[0])


@pytest.mark.parametrize("name", ENSEMBLES)
def test_equal_models_classify_as_one_does(name: str) -> None:
    logits, thresholds = np.repeat(LOGITS[:1], 3, axis=0), np.full(3, 0.7)
    probability, threshold = combine(name, logits, thresholds)
    np.testing.assert_array_equal(probability >= threshold, expit(LOGITS[0]) >= 0.7)


@pytest.mark.parametrize("name", ENSEMBLES)
def test_no_images_are_no_error(name: str) -> None:
    probability, _ = combine(name, LOGITS[:, :0], THRESHOLDS)
    assert probability.shape == log_odds(name, LOGITS[:, :0], probability).shape == (0,)


@pytest.mark.parametrize("name", ["mean_logit", "median"])
def test_thresholds_at_both_ends_still_give_a_number(name: str) -> None:
    _, threshold = combine(name, LOGITS[:2], np.array([0.0, 1.0]))
    assert threshold == pytest.approx(0.5, abs=1e-4)


def test_the_combined_logit_keeps_its_digits_at_a_probability_of_one() -> None:
    combined = {}
    for name in ENSEMBLES:
        probability, _ = combine(name, LOGITS, THRESHOLDS)
        combined[name] = log_odds(name, LOGITS, probability)
    np.testing.assert_allclose(combined["mean_logit"], [2, 1 / 3, -2, 50])
    np.testing.assert_allclose(combined["median"], [1, 0, -2, 50])
    probability, _ = combine("mean_probability", LOGITS, THRESHOLDS)
    np.testing.assert_allclose(combined["mean_probability"][:3], logit(probability[:3]))
    np.testing.assert_array_equal(combined["vote"], [np.inf, logit(1 / 3), -np.inf, np.inf])


def test_agreement_of_every_two_models() -> None:
    table = agreement(LOGITS[:, :3], THRESHOLDS, ["a", "b", "c"])
    # Labels: a 1 1 0, b 1 0 0, c 1 0 0. Ranks: a 2 3 1, b 3 2 1, c 3 2 1.
    assert table[["first", "second"]].to_numpy().tolist() == [["a", "b"], ["a", "c"], ["b", "c"]]
    np.testing.assert_allclose(table["same_label"], [2 / 3, 2 / 3, 1])
    np.testing.assert_allclose(table["spearman"], [0.5, 0.5, 1])


def test_a_model_with_equal_scores_has_no_rank_correlation() -> None:
    table = agreement(np.array([[0.0, 0.0, 0.0], [1.0, 2.0, 3.0]]), THRESHOLDS[:2], ["a", "b"])
    assert np.isnan(table["spearman"][0])
    assert table["same_label"][0] == 1


def test_spread_is_the_standard_deviation_over_models() -> None:
    of_logit, of_probability = spread(np.array([[1.0, 0.0], [3.0, 0.0]]))
    np.testing.assert_allclose(of_logit, [1, 0])
    np.testing.assert_allclose(of_probability, [(sigmoid(3) - sigmoid(1)) / 2, 0])

"""Tests of decisions: the answer for each probability, and its edges."""

import math
from dataclasses import replace

import numpy as np
import pytest
from scipy.special import expit

from synthdetect.evaluation.calibration import Calibration
from synthdetect.evaluation.decision import Decision, decide
from synthdetect.evaluation.options import DecisionOptions

BELOW, ABOVE = math.nextafter(0.5, 0), math.nextafter(0.5, 1)
ABOVE_ONE = math.nextafter(1, 2)


@pytest.mark.parametrize(
    ("threshold", "band", "expected"),
    [
        (0.5, 0.0, {0.0: "real", BELOW: "real", 0.5: "synthetic", 1.0: "synthetic"}),
        # The band ends before its edges.
        (0.5, 0.25, {0.25: "real", math.nextafter(0.25, 1): "unsure", BELOW: "unsure",
                     0.5: "unsure", math.nextafter(0.75, 0): "unsure", 0.75: "synthetic"}),
        (0.5, 0.5, {0.0: "real", 1e-9: "unsure", 1 - 1e-9: "unsure", 1.0: "synthetic"}),
        (0.0, 0.0, {0.0: "synthetic", 1.0: "synthetic"}),
        (0.0, 0.25, {0.0: "unsure", 0.25: "synthetic"}),
        (1.0, 0.0, {math.nextafter(1, 0): "real", 1.0: "synthetic"}),
        # No probability reaches a threshold above 1, but the band below it exists.
        (ABOVE_ONE, 0.0, {0.0: "real", 1.0: "real"}),
        (ABOVE_ONE, 0.25, {0.75: "real", math.nextafter(0.75, 1): "real", 0.7500001: "unsure",
                           1.0: "unsure"}),
    ],
)  # fmt: skip
def test_the_answer_for_each_probability(
    threshold: float, band: float, expected: dict[float, str]
) -> None:
    answers = Decision(threshold=threshold, unsure=band).answer(list(expected))
    assert answers.words.tolist() == list(expected.values())
    assert answers.unsure.tolist() == [word == "unsure" for word in expected.values()]
    for label, probability, word in zip(answers.label, expected, expected.values(), strict=True):
        assert label == (probability >= threshold)
        assert word in ("unsure", ("real", "synthetic")[label])


def test_the_label_is_the_same_with_and_without_a_band() -> None:
    probability = np.linspace(0, 1, 101)
    with_band = Decision(threshold=0.4, unsure=0.2).answer(probability)
    without = Decision(threshold=0.4).answer(probability)
    np.testing.assert_array_equal(with_band.label, without.label)
    assert with_band.label.dtype == np.int8
    assert with_band.unsure.any()
    assert not without.unsure.any()


@pytest.mark.parametrize("shape", [(), (0,), (3,), (2, 3)])
def test_answers_have_the_shape_of_the_probabilities(shape: tuple[int, ...]) -> None:
    answers = Decision(unsure=0.1).answer(np.full(shape, 0.45))
    assert answers.label.shape == answers.unsure.shape == answers.words.shape == shape
    assert set(answers.words.ravel().tolist()) <= {"unsure"}


def test_under_fpr_the_threshold_may_exceed_every_probability() -> None:
    """The highest score is that of a real image, and no real image may be called synthetic."""
    options = DecisionOptions(threshold_rule="fpr", max_fpr=0.01, calibration="none", unsure=0.1)
    decision = decide(options, [0, 0, 1, 1], [-1.0, 800.0, 0.5, 1.0])
    assert decision.threshold == ABOVE_ONE
    assert decision.calibration == Calibration()
    assert decision.unsure == 0.1
    assert decision.answer([0.5, 1.0]).words.tolist() == ["real", "unsure"]


@pytest.mark.parametrize("calibration", ["temperature", "platt", "isotonic", "none"])
def test_another_prior_shifts_the_odds_by_the_ratio_of_the_prior_odds(calibration: str) -> None:
    rng = np.random.default_rng(0)
    labels = np.arange(400) % 4 == 0
    logits = rng.normal(size=400) + 2 * labels - 1
    decision = decide(DecisionOptions(calibration=calibration), labels, logits)
    assert decision.prior == 0.25
    shifted = decision.with_prior(0.9)
    odds = np.exp(shifted.calibration(logits) - decision.calibration(logits))
    np.testing.assert_allclose(odds, (0.9 / 0.1) / (0.25 / 0.75))
    assert (shifted.prior, shifted.threshold) == (0.9, decision.threshold)
    np.testing.assert_allclose(
        shifted.with_prior(0.25).calibration(logits), decision.calibration(logits)
    )
    assert shifted.calibration.sound


def test_a_shift_to_the_true_prior_lowers_the_loss_where_the_prior_has_changed() -> None:
    """Saerens et al. 2002: the probabilities of a sound calibration are those of its own prior."""
    rng = np.random.default_rng(1)

    def drawn(prior: float) -> tuple[np.ndarray, np.ndarray]:
        labels = rng.random(20_000) < prior
        return labels, rng.normal(size=20_000) + np.where(labels, 1, -1)

    def loss(decision: Decision) -> float:
        p = expit(decision.calibration(logits))
        return float(-np.log(np.where(labels, p, 1 - p)).mean())

    decision = decide(DecisionOptions(calibration="platt"), *drawn(0.5))
    labels, logits = drawn(0.83)
    shifted = decision.with_prior(0.83)
    assert loss(shifted) < loss(decision) - 0.05
    assert loss(shifted) < min(loss(decision.with_prior(p)) for p in (0.7, 0.95))
    assert np.mean(expit(shifted.calibration(logits))) == pytest.approx(0.83, abs=0.01)


def test_an_unknown_prior_cannot_be_shifted() -> None:
    one_class = DecisionOptions(calibration="none", threshold_rule="half")
    assert decide(one_class, [1, 1], [0.0, 1.0]).prior is None
    with pytest.raises(ValueError, match="unknown"):
        Decision().with_prior(0.5)


def test_the_description_has_the_threshold_and_the_calibration() -> None:
    decision = Decision(Calibration(slope=0.5), threshold=0.3, unsure=0.1)
    assert decision.describe() == {"threshold": 0.3, "temperature": 2.0}
    known = replace(decision, prior=0.25)
    assert known.describe() == {"threshold": 0.3, "prior": 0.25, "temperature": 2.0}

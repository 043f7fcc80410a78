"""Tests of the comparison with torch on made-up logits."""

from dataclasses import replace

import numpy as np
import pytest

from synthdetect.detectors.card import Card
from synthdetect.detectors.engines.parity import (
    Limits,
    Parity,
    ParityError,
    compare,
    label_changes,
    require_parity,
)
from synthdetect.evaluation.calibration import Calibration
from synthdetect.evaluation.decision import Decision
from synthdetect.models.spec import ModelSpec

CARD = Card(
    model=ModelSpec.of("resnet18", 32), geometry="resize",
    decision=Decision(Calibration(offset=1.0)), engine="openvino", precision="int8",
)  # fmt: skip
LABELS = [0, 0, 1, 1]
BY_TORCH = np.array([-3.0, -1.5, -0.5, 4.0])


def test_changes_of_logits_labels_and_auc() -> None:
    parity = compare(CARD, LABELS, BY_TORCH, np.array([-3.0, 0.0, -0.5, 3.5]))
    assert (parity.images, parity.logit_max) == (4, 4.0)
    assert (parity.logit_change_max, parity.logit_change_mean) == (1.5, 0.5)
    # The label is synthetic from a logit of -1, which is calibrated to 0. The second label changes.
    assert parity.label_changes == 0.25
    assert (parity.logit_shift, parity.logit_change_p95) == (0.25, pytest.approx(1.35))
    assert (parity.auc_torch, parity.auc_engine, parity.auc_change) == (1.0, 0.75, -0.25)


def test_changes_of_logits_are_log_odds_of_the_calibrated_answers() -> None:
    cold = replace(CARD, decision=Decision(Calibration(slope=1.5)))
    parity = compare(cold, LABELS, BY_TORCH, BY_TORCH - 0.5)
    assert (parity.logit_shift, parity.logit_change_p95) == (-0.75, 0.75)
    assert parity.logit_change_mean == 0.5


def test_an_extreme_logit_that_is_cut_off_is_no_shift() -> None:
    extreme = np.array([-30.0, -1.5, -0.5, 40.0])
    parity = compare(CARD, LABELS, extreme, np.array([-10.0, -1.5, -0.5, 12.0]))
    assert parity.logit_change_max == 28
    assert (parity.logit_shift, parity.logit_change_p95) == (0, 0)


def test_labels_are_compared_by_the_decision_of_either_side() -> None:
    other = Decision(Calibration(offset=0.0))
    assert label_changes(CARD.decision, BY_TORCH, CARD.decision, BY_TORCH + 1) == 0.25
    assert label_changes(CARD.decision, BY_TORCH, other, BY_TORCH + 1) == 0


AGREES = Parity(4, 4.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0, 1.0, 0.0)


@pytest.mark.parametrize(
    ("found", "limit"),
    [
        ("auc_change", "max_auc_change"),
        ("label_changes", "max_label_changes"),
        ("logit_shift", "max_logit_shift"),
        ("logit_change_p95", "max_logit_change"),
    ],
)
def test_each_limit_holds_for_its_own_change_in_both_directions(found: str, limit: str) -> None:
    none = Limits(0.0, 0.0, 0.0, 0.0)
    require_parity(CARD, AGREES, none)
    for value in (0.25, -0.25) if found in ("auc_change", "logit_shift") else (0.25,):
        parity = replace(AGREES, **{found: value})
        require_parity(CARD, parity, replace(none, **{limit: 0.25}))
        for others in (none, replace(Limits(1, 1, 1, 1), **{limit: 0.2})):
            with pytest.raises(ParityError, match=f"--{limit.replace('_', '-')} 0"):
                require_parity(CARD, parity, others)


LAX = Limits(0.0, 1.0, 1.0, 1.0)


def test_in_fp32_a_logit_may_change_only_by_rounding_errors() -> None:
    exact = replace(CARD, precision="fp32")
    for change, passes in ((0.0039, True), (0.0041, False)):  # the greatest logit is 4
        parity = compare(exact, LABELS, BY_TORCH, BY_TORCH + change)
        assert parity.auc_change == 0
        require_parity(CARD, parity, LAX)
        if passes:
            require_parity(exact, parity, LAX)
        else:
            with pytest.raises(ParityError, match="--engine"):
                require_parity(exact, parity, LAX)


def test_a_logit_that_is_not_finite_is_an_error() -> None:
    with pytest.raises(ParityError, match="not finite"):
        compare(CARD, LABELS, BY_TORCH, np.array([np.nan, 0, 0, 0]))

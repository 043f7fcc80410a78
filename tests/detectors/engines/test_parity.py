"""Tests of the comparison with torch on made-up logits."""

from dataclasses import replace

import numpy as np
import pytest

from synthdetect.detectors.card import Card
from synthdetect.detectors.engines.parity import ParityError, compare, require_parity
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
    assert parity.same_answer == 0.75
    assert (parity.auc_torch, parity.auc_engine, parity.auc_change) == (1.0, 0.75, -0.25)


def test_the_auc_may_change_by_the_tolerance_in_both_directions() -> None:
    worse = compare(CARD, LABELS, BY_TORCH, np.array([-3.0, 0.0, -0.5, 3.5]))
    better = replace(worse, auc_change=0.25)
    for parity in (worse, better):
        require_parity(CARD, parity, 0.25)
        with pytest.raises(ParityError, match=r"0\.2\b.*--tolerance"):
            require_parity(CARD, parity, 0.2)


def test_in_fp32_a_logit_may_change_only_by_rounding_errors() -> None:
    exact = replace(CARD, precision="fp32")
    for change, passes in ((0.0039, True), (0.0041, False)):  # the greatest logit is 4
        parity = compare(exact, LABELS, BY_TORCH, BY_TORCH + change)
        assert parity.auc_change == 0
        require_parity(CARD, parity, 0.0)
        if passes:
            require_parity(exact, parity, 0.0)
        else:
            with pytest.raises(ParityError, match="--engine"):
                require_parity(exact, parity, 0.0)


def test_a_logit_that_is_not_finite_is_an_error() -> None:
    with pytest.raises(ParityError, match="not finite"):
        compare(CARD, LABELS, BY_TORCH, np.array([np.nan, 0, 0, 0]))

"""One suite for every loss in the registry; a new entry is tested by being there."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from synthdetect.system.errors import UserError
from synthdetect.training.losses import loss_of, smooth
from synthdetect.training.options import LOSSES, LossOptions
from tests.training.conftest import options_of

LOGITS = torch.linspace(-40, 40, 41)


def loss(logits: Tensor, targets: Tensor, **given: Any) -> Tensor:
    return loss_of(logits, targets, LossOptions.resolve(given))


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("gamma", [0.0, 1.0, 2.0, 10.0])
@pytest.mark.parametrize("target", [0.0, 0.3, 1.0])
def test_a_loss_and_its_gradients_are_numbers_and_reach_every_logit(
    name: str, gamma: float, target: float
) -> None:
    logits = LOGITS.clone().requires_grad_()
    value = loss(logits, torch.full_like(LOGITS, target), loss=name, focal_gamma=gamma)
    assert value.shape == ()
    assert value > 0
    (gradient,) = torch.autograd.grad(value, logits)
    assert gradient.isfinite().all()
    wrong = (LOGITS.sigmoid() - target).abs() > 0.5
    assert gradient[wrong].all()


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("target", [0.0, 0.25, 1.0])
def test_gradients_are_those_of_the_loss(name: str, target: float) -> None:
    logits = torch.linspace(-3, 3, 7, dtype=torch.float64, requires_grad=True)
    targets = torch.full((7,), target, dtype=torch.float64)
    given = {"loss": name, "label_smoothing": 0.1}
    assert torch.autograd.gradcheck(lambda x: loss(x, targets, **given), logits)


@pytest.mark.parametrize("name", LOSSES)
def test_a_better_answer_costs_less(name: str) -> None:
    costs = [loss(x[None], torch.ones(1), loss=name).item() for x in torch.linspace(-5, 5, 11)]
    assert costs == sorted(costs, reverse=True)


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_focal_at_gamma_0_is_cross_entropy(smoothing: float) -> None:
    targets = torch.linspace(0, 1, len(LOGITS))
    focal = loss(LOGITS, targets, loss="focal", focal_gamma=0, label_smoothing=smoothing)
    torch.testing.assert_close(focal, loss(LOGITS, targets, label_smoothing=smoothing))


def test_focal_by_hand() -> None:
    """p = 0.8 and 0.2 of the label: (0.2^2 * -ln 0.8 + 0.8^2 * -ln 0.2) / 2."""
    logits = torch.logit(torch.tensor([0.8, 0.8]))
    value = loss(logits, torch.tensor([1.0, 0.0]), loss="focal", focal_gamma=2)
    assert value.item() == pytest.approx((0.04 * 0.2231436 + 0.64 * 1.6094379) / 2, abs=1e-6)


def test_cross_entropy_without_smoothing_is_torchs_to_the_last_bit() -> None:
    targets = (torch.arange(len(LOGITS)) % 2).float()
    assert torch.equal(loss(LOGITS, targets), F.binary_cross_entropy_with_logits(LOGITS, targets))


def test_smoothing_moves_labels_towards_one_half() -> None:
    targets = torch.tensor([0.0, 1.0, 0.5, 0.25])
    assert torch.equal(smooth(targets, 0.0), targets)
    assert smooth(targets, 0.1).tolist() == pytest.approx([0.05, 0.95, 0.5, 0.275])
    (least,) = torch.tensor([0.95]).logit()
    costs = [
        loss(x[None], torch.ones(1), label_smoothing=0.1) for x in (least - 1, least, least + 1)
    ]
    assert costs[1] < min(costs[0], costs[2])


@pytest.mark.parametrize("name", LOSSES)
def test_pos_weight_weighs_synthetic_images_and_mixtures_in_part(name: str) -> None:
    logits = torch.tensor([-1.0, 0.5, 2.0])
    targets = torch.tensor([0.0, 1.0, 0.5])
    single = [loss(x[None], t[None], loss=name) for x, t in zip(logits, targets, strict=True)]
    weighted = loss(logits, targets, loss=name, pos_weight="3")
    torch.testing.assert_close(weighted, (single[0] + 3 * single[1] + 2 * single[2]) / 3)


@pytest.mark.parametrize("value", ["0", "-1", "inf", "nan", "many"])
def test_a_pos_weight_is_auto_or_a_number_above_0(value: str) -> None:
    with pytest.raises(UserError, match=r"pos-weight.*give auto or a number above 0"):
        LossOptions.resolve({"pos_weight": value})


def test_balance_and_an_automatic_weight_do_not_go_together() -> None:
    with pytest.raises(UserError, match="--balance class and --pos-weight auto"):
        options_of(balance="class", pos_weight="auto")

"""Tests that every registered mixing method must pass."""

from typing import Any

import pytest
import torch
from torch import Tensor

from synthdetect.images.mixing import MIXINGS, mix
from synthdetect.images.options import AugmentationOptions

TARGETS = torch.tensor([0.0, 1.0, 1.0, 0.0, 1.0, 0.0])
SEED = (42, 3, 7)


def images() -> Tensor:
    """Images whose pixels all equal their index, so that the share of each can be measured."""
    return torch.arange(6.0)[:, None, None, None].repeat(1, 3, 32, 32)


def mixed(seed: tuple[int, int, int] = SEED, /, **given: Any) -> tuple[Tensor, Tensor]:
    return mix(images(), TARGETS, AugmentationOptions.resolve(given), seed)


def test_every_method_is_off_by_default() -> None:
    assert all(AugmentationOptions.fields()[name].default == 0 for name in MIXINGS)
    given = images()
    same, targets = mix(given, TARGETS, AugmentationOptions.resolve({}), SEED)
    assert same is given
    assert targets is TARGETS


@pytest.mark.parametrize("name", MIXINGS)
@pytest.mark.parametrize("number", range(5))
def test_labels_are_mixed_as_the_pixels_are(name: str, number: int) -> None:
    changed, targets = mixed((42, 1, number), **{name: 1.0})
    assert changed.shape == (6, 3, 32, 32)
    for row in range(6):
        own, other = float(row), float((row - 1) % 6)
        share = (changed[row].mean().item() - other) / (own - other)  # of the image itself
        assert -1e-6 <= share <= 1 + 1e-6
        expected = share * TARGETS[row] + (1 - share) * TARGETS[row - 1]
        assert targets[row].item() == pytest.approx(expected.item(), abs=1e-4)


@pytest.mark.parametrize("name", MIXINGS)
def test_mixed_classes_sum_to_one(name: str) -> None:
    options = AugmentationOptions.resolve({name: 0.5})
    for number in range(20):
        _, synthetic = mix(images(), TARGETS, options, (1, 1, number))
        _, real = mix(images(), 1 - TARGETS, options, (1, 1, number))
        torch.testing.assert_close(synthetic + real, torch.ones(6))
        assert synthetic.min() >= 0
        assert synthetic.max() <= 1


@pytest.mark.parametrize("alpha", [1e-6, 0.01, 100.0])
@pytest.mark.parametrize("name", MIXINGS)
def test_any_alpha_gives_numbers(name: str, alpha: float) -> None:
    for number in range(20):
        changed, targets = mixed((1, 1, number), **{name: alpha})
        assert changed.isfinite().all()
        assert targets.isfinite().all()


@pytest.mark.parametrize("given", [{"mixup": 1.0}, {"cutmix": 1.0}, {"mixup": 1.0, "cutmix": 1.0}])
def test_it_depends_only_on_seed_epoch_and_number(given: dict[str, float]) -> None:
    first = mixed(**given)
    torch.rand(10)
    before = torch.get_rng_state()
    again = mixed(**given)
    assert torch.equal(torch.get_rng_state(), before)  # so that dropout is not affected
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    for seed in ((43, 3, 7), (42, 4, 7), (42, 3, 8)):
        assert not torch.equal(mixed(seed, **given)[0], first[0])


def test_if_both_are_on_each_batch_uses_one_of_them() -> None:
    kinds = []
    for number in range(40):
        changed, targets = mixed((1, 1, number), mixup=1.0, cutmix=1.0)
        if not torch.equal(targets, TARGETS):
            kinds.append(bool((changed == changed.round()).all()))  # pasted, not blended
    assert 8 < sum(kinds) < len(kinds) - 8


def test_small_alphas_change_little() -> None:
    """A Beta distribution with a small alpha is concentrated near 0 and 1."""
    near, far = (
        sum(
            torch.minimum(t, 1 - t).max().item()
            for t in (mixed((1, 1, n), mixup=alpha)[1] for n in range(50))
        )
        for alpha in (0.05, 5.0)
    )
    assert near < far / 3

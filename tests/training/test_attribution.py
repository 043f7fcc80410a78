"""Which generators a training tells apart, and the loss of that."""

from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
import torch

from synthdetect.datasets.manifest import Manifest
from synthdetect.system.errors import UserError
from synthdetect.training.attribution import (
    NOT_COUNTED,
    attributed_generators,
    attribution_loss,
    generator_numbers,
)
from synthdetect.training.objective import Objective, Step
from synthdetect.training.options import LossOptions
from tests.training.conftest import CPU, SPEC, Tiny, options_of

ON = LossOptions.resolve({"attribution": "0.5"})


def manifest_of(*rows: tuple[str, int, str]) -> Manifest:
    table = pd.DataFrame(rows, columns=["split", "label", "generator"])
    return Manifest(table, Path(), "data")


def test_the_generators_are_those_of_the_synthetic_training_images() -> None:
    rows = [("train", 1, "b"), ("train", 1, "a"), ("train", 1, ""), ("train", 0, "camera"),
            ("val", 1, "a"), ("test", 1, "c")]  # fmt: skip
    manifest = manifest_of(*rows)
    assert attributed_generators(ON, manifest) == ("a", "b")
    assert attributed_generators(LossOptions(), manifest) == ()
    table = manifest.table
    assert generator_numbers(table, ("a", "b")).tolist() == [1, 0, -1, -1, 0, -1]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([("train", 1, "a"), ("train", 1, ""), ("train", 0, "b")], "two generators or more.*: a"),
        ([("train", 1, "a"), ("train", 1, "real")], "named 'real'"),
        ([("train", 1, "a"), ("train", 1, "unknown")], "named 'unknown'"),
        ([("train", 1, "a"), ("train", 1, "b"), ("val", 1, "c")], "no validation image"),
    ],
)
def test_data_that_cannot_be_attributed_are_refused(
    rows: list[tuple[str, int, str]], message: str
) -> None:
    with pytest.raises(UserError, match=f"--attribution 0.5: .*{message}"):
        attributed_generators(ON, manifest_of(*rows))


def test_images_that_do_not_count_change_neither_the_loss_nor_the_gradient() -> None:
    logits = torch.tensor([[2.0, 0], [1, 3], [5, -5]], requires_grad=True)
    loss = attribution_loss(logits, torch.tensor([0, NOT_COUNTED, 1]))
    expected = -torch.log_softmax(logits, dim=1)[[0, 2], [0, 1]].mean()
    torch.testing.assert_close(loss, expected)
    loss.backward()
    assert logits.grad is not None
    assert logits.grad[1].tolist() == [0, 0]
    assert attribution_loss(logits, torch.full((3,), NOT_COUNTED)).item() == 0


@pytest.mark.parametrize("given", [{}, {"adaptation": "coral", "target": "images"}])
def test_the_objective_adds_the_loss_by_its_weight(given: dict[str, str]) -> None:
    torch.manual_seed(0)
    network = Tiny(norm=False, spec=replace(SPEC, generators=("a", "b")))
    images = torch.rand(6, 3, 32, 32) * 255
    step = Step(images, torch.tensor([0.0, 1, 1, 0, 1, 1]), unlabelled=torch.rand_like(images))
    numbers = torch.tensor([-1, 0, 1, -1, 0, -1])
    values = {}
    for weight in (0.0, 0.5, 1.0):
        options = options_of(attribution=weight, **given)
        asked = step._replace(generators=numbers) if weight else step
        values[weight] = Objective(options, CPU, network)(network, asked)[0]
    own = attribution_loss(network.outputs(images)[:, 1:], numbers)
    torch.testing.assert_close(values[1.0] - values[0.0], own)
    torch.testing.assert_close(values[0.5] - values[0.0], own / 2)


@pytest.mark.parametrize("mixing", ["mixup", "cutmix"])
def test_mixed_images_cannot_be_attributed(mixing: str) -> None:
    with pytest.raises(UserError, match=f"--attribution 0.3: --{mixing} mixes"):
        options_of(attribution=0.3, **{mixing: 0.2})

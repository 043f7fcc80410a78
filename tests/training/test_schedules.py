"""Learning-rate schedules: their factors, literally, and that they come back from a checkpoint."""

from pathlib import Path
from typing import Any

import pytest
import torch

from synthdetect.training.checkpoint import load, save
from synthdetect.training.loop import TrainingState, start_training
from synthdetect.training.options import OPTIMIZERS, SCHEDULES
from tests.training.conftest import CPU, START, Tiny, options_of

LR = 0.1


def begun(**given: Any) -> TrainingState:
    torch.manual_seed(0)
    return start_training(Tiny(), CPU, options_of(lr=LR, **given))


def factors(training: TrainingState, epochs: int) -> list[float]:
    """The learning rate of the next epochs, relative to the initial one."""
    found = []
    for _ in range(epochs):
        (rate,) = {group["lr"] for group in training.optimizer.param_groups}
        found.append(rate / LR)
        training.optimizer.step()
        training.schedule.step()
    return found


COSINE_OF_4 = [1, 0.8535534, 0.5, 0.1464466]  # (1 + cos(pi * e / 4)) / 2
FACTORS: list[tuple[dict[str, Any], list[float]]] = [
    ({"schedule": "cosine", "epochs": 1}, [1]),
    ({"schedule": "cosine", "epochs": 4}, COSINE_OF_4),
    ({"schedule": "constant", "epochs": 4}, [1, 1, 1, 1]),
    ({"schedule": "cosine", "epochs": 5, "warmup_epochs": 1}, [0.5, *COSINE_OF_4]),
    ({"schedule": "cosine", "epochs": 6, "warmup_epochs": 2}, [1 / 3, 2 / 3, *COSINE_OF_4]),
    ({"schedule": "constant", "epochs": 5, "warmup_epochs": 3}, [0.25, 0.5, 0.75, 1, 1]),
    ({"schedule": "cosine", "epochs": 3, "warmup_epochs": 2}, [1 / 3, 2 / 3, 1]),
]


def test_the_factors_are_of_every_schedule() -> None:
    assert {given["schedule"] for given, _ in FACTORS} == set(SCHEDULES)


@pytest.mark.parametrize(("given", "expected"), FACTORS)
def test_the_factors_of_the_learning_rate(given: dict[str, Any], expected: list[float]) -> None:
    assert factors(begun(**given), given["epochs"]) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("decay_norms", [True, False])
def test_a_schedule_reaches_every_group_of_every_optimizer(
    optimizer: str, decay_norms: bool
) -> None:
    given, expected = FACTORS[4]
    training = begun(optimizer=optimizer, decay_norms=decay_norms, **given)
    assert factors(training, 6) == pytest.approx(expected, abs=1e-6)


def test_no_warmup_is_the_bare_schedule() -> None:
    optim = torch.optim.lr_scheduler
    assert type(begun().schedule) is optim.CosineAnnealingLR
    assert type(begun(schedule="constant").schedule) is optim.ConstantLR


@pytest.mark.parametrize(("given", "expected"), FACTORS)
@pytest.mark.parametrize("done", [0, 1, 2, 3])
def test_a_schedule_continues_from_a_checkpoint_identically(
    tmp_path: Path, given: dict[str, Any], expected: list[float], done: int
) -> None:
    """In the middle of the warm-up, at its end, and after it."""
    first = begun(**given)
    factors(first, done)
    save(tmp_path / "last.safetensors", first, START)
    second = begun(**given)
    load(tmp_path / "last.safetensors", second)
    left = given["epochs"] - done
    found = factors(second, left)
    assert found == factors(first, left)
    assert found == pytest.approx(expected[done:], abs=1e-6)
    assert second.schedule.state_dict().keys() == first.schedule.state_dict().keys()

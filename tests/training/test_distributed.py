"""One process and two train the same network, bit for bit, from the same parts of batches."""

import json
import multiprocessing
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from PIL import Image
from torch.distributed import FileStore  # type: ignore[attr-defined]

from synthdetect.images.batches import Batches, Division, ImageFiles, Order, Part
from synthdetect.images.geometry import Preprocess
from synthdetect.models.tensors import digest_of, tensors_of
from synthdetect.system.errors import UserError
from synthdetect.training.distributed import Group, alone, joined
from synthdetect.training.loop import (
    Hooks,
    TrainingData,
    TrainingState,
    fit,
    start_training,
    steps_of,
    train_epoch,
)
from tests.training.conftest import CPU, Tiny, options_of

TRAIN, VAL, SIZE = 29, 25, 8
HARD: dict[str, Any] = {"hflip": 0.5, "mixup": 0.2, "average": "ema", "accumulate": 2, "epochs": 3}
"""Options by which a process could differ from another one."""


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Noise, in which every second image has a chessboard."""
    folder, rng = tmp_path_factory.mktemp("images"), np.random.default_rng(0)
    board = 8 * (-1.0) ** np.add.outer(np.arange(32), np.arange(32))[..., None]
    for i in range(TRAIN + VAL):
        pixels = rng.normal(128, 20, (32, 32, 3)) + (i % 2) * board
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(folder / f"{i}.png")
    return [str(folder / f"{i}.png") for i in range(TRAIN + VAL)]


def labels(count: int) -> npt.NDArray[np.int8]:
    return (np.arange(count) % 2).astype(np.int8)


def trained(files: list[str], group: Group, **given: Any) -> TrainingState:
    """A training of this process."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    options = options_of(batch_size=SIZE, shards=group.division.parts, **given)
    training = start_training(Tiny(dropout=0.5), CPU, options, group)

    def batches(part: list[str], seed: int | None, size: int) -> Batches:
        images = ImageFiles(part, Preprocess(32, "resize"), targets=labels(len(part)), seed=seed)
        return Batches(images, Order(len(part), size, seed=seed, division=group.division), 0)

    data = TrainingData(batches(files[:TRAIN], 7, SIZE), batches(files[TRAIN:], None, VAL))
    fit(training, data, Hooks())
    return training


def outcome(training: TrainingState) -> dict[str, Any]:
    """All that a training comes to, without what depends on time."""
    history = [
        {name: value for name, value in record.items() if "images_per_second" not in name}
        for record in training.progress.history
    ]
    networks = {"learnt": training.network, "evaluated": training.evaluated}
    return {"history": history, **{n: digest_of(tensors_of(x)) for n, x in networks.items()}}


def _one_of_two(rank: int, meeting: str, files: list[str], given: dict[str, Any]) -> None:
    with joined(Division(given.pop("parts"), 2, rank), FileStore(f"{meeting}/store", 2)) as group:
        training = trained(files, group, **given)
        speeds = [n for n in training.progress.history[-1] if n.startswith("process_")]
        found = {**outcome(training), "speeds": speeds, "waited": group.waited}
        known = np.full((3, 1) if rank == 0 else 3, 7.0)  # which only the first process holds
        found["union"] = group.union(known, np.full(3, rank == 0)).tolist()
        Path(meeting, f"{rank}.json").write_text(json.dumps(found))


def in_two_processes(folder: Path, files: list[str], **given: Any) -> list[dict[str, Any]]:
    context = multiprocessing.get_context("spawn")
    started = [
        context.Process(target=_one_of_two, args=(rank, str(folder), files, given))
        for rank in range(2)
    ]
    for process in started:
        process.start()
    for process in started:
        process.join(300)
        assert process.exitcode == 0
    return [json.loads((folder / f"{rank}.json").read_text()) for rank in range(2)]


def test_two_processes_train_what_one_trains(files: list[str], tmp_path: Path) -> None:
    """With dropout, normalisation, mixed images, an average, and parts of unequal sizes.

    The images that validate are a single batch, so the second process has none of it.
    """
    wanted = outcome(trained(files, alone(4), **HARD))
    for found in in_two_processes(tmp_path, files, parts=4, **HARD):
        assert found.pop("speeds") == [f"process_{n}/images_per_second" for n in range(2)]
        assert found.pop("waited") > 0
        assert found.pop("union") == [[7.0]] * 3
        assert found == json.loads(json.dumps(wanted))


@pytest.mark.parametrize("images", [29, 34, 38])
def test_every_image_is_in_one_part_of_its_batch(images: int) -> None:
    def parts(division: Division) -> list[tuple[Part, list[tuple[int, int]]]]:
        order = Order(images, SIZE, seed=3, division=division)
        found = list(order)
        assert len(found) == len(order)
        return [(order.part(index), keys) for index, keys in enumerate(found)]

    together = sorted(parts(Division(4, 2, 0)) + parts(Division(4, 2, 1)))
    assert together == parts(Division(4, 1))
    keys = [key for part, own in together for key in own]
    assert [part.number for part, _ in together] == list(range(len(together)))
    assert sorted(row for _, row in keys) == list(range(images))
    assert min(len(own) for _, own in together) >= 2
    begins = np.cumsum([0, *(len(own) for _, own in together)])
    assert [part.first for part, _ in together] == begins[:-1].tolist()
    whole = [sum(len(own) for _, own in together[i : i + 4]) for i in range(0, len(together), 4)]
    assert [part.whole for part, _ in together[::4]] == whole
    # As long as no part is too small, the batches are those of undivided training.
    if images % SIZE == 0 or images % SIZE >= 8:
        undivided = [key for own in Order(images, SIZE, seed=3) for key in own]
        assert keys == undivided


def test_processes_take_turns_at_batches_of_evaluation() -> None:
    whole = list(Order(25, 4))
    for rank in range(3):
        assert list(Order(25, 4, division=Division(3, 3, rank))) == whole[rank::3]


def step_of(parts: int, files: list[str], *, norm: bool) -> TrainingState:
    """A training after one step of SGD on a batch of 12."""
    torch.manual_seed(0)
    options = options_of(batch_size=12, shards=parts, optimizer="sgd", momentum=0, weight_decay=0)
    training = start_training(Tiny(norm=norm), CPU, options)
    images = ImageFiles(files[:12], Preprocess(32, "resize"), targets=labels(12), seed=1)
    order = Order(12, 12, seed=1, division=Division(parts))
    data = TrainingData(Batches(images, order, 0))
    train_epoch(training, steps_of(training, data, 1), Hooks())
    return training


def test_the_gradient_of_the_parts_is_that_of_the_batch(files: list[str]) -> None:
    whole, divided = (step_of(parts, files, norm=False).network.state_dict() for parts in (1, 4))
    for name, values in whole.items():
        assert torch.allclose(values, divided[name], rtol=1e-5, atol=1e-7), name


def test_statistics_are_the_means_over_the_parts(files: list[str]) -> None:
    """The means of equal parts average to that of the batch; variances within parts are smaller."""
    whole, divided = (step_of(parts, files, norm=True).network for parts in (1, 3))
    assert isinstance(whole, Tiny)
    assert isinstance(divided, Tiny)
    a, b = whole.norm.state_dict(), divided.norm.state_dict()
    assert torch.allclose(a["running_mean"], b["running_mean"], atol=1e-6)
    assert (b["running_var"] < a["running_var"] + 1e-4).all()
    assert not torch.equal(a["running_var"], b["running_var"])
    assert a["num_batches_tracked"] == b["num_batches_tracked"] == 1


@pytest.mark.parametrize(
    "given",
    [
        {"processes": 2, "adaptation": "coral", "target": "x"},
        {"shards": 2, "optimizer": "lookahead"},
        {"shards": 3, "processes": 2},
        {"shards": 8, "batch_size": 8},
        {"processes": 8, "batch_size": 8},
        {"processes": 2, "device": "mps"},
        {"shards": 2, "recipe": "probe"},
    ],
)
def test_what_cannot_be_divided_is_refused(given: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=r"--(shards|processes)"):
        options_of(**given)

"""The loop learns, stops, resumes and repeats itself exactly, on images of 32 pixels."""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from synthdetect.evaluation.metrics import metrics
from synthdetect.images.batches import Batches, ImageFiles, Order
from synthdetect.images.geometry import Preprocess
from synthdetect.images.options import AugmentationOptions
from synthdetect.models.networks import Start
from synthdetect.runs.options import TrainOptions
from synthdetect.training.checkpoint import load, save
from synthdetect.training.devices import Device
from synthdetect.training.loop import (
    Diverged,
    Progress,
    TrainingState,
    fit,
    predict,
    prepared,
    start_training,
    train_epoch,
)
from synthdetect.training.objective import Objective, Step

CPU = Device("cpu", "fp32", 0)
START = Start("random", "asked for")
PLAIN = AugmentationOptions.resolve({"hflip": 0, "jitter": 0, "blur": 0, "rotation": 0})
CHANGED = AugmentationOptions.resolve({"hflip": 0.5, "jitter": 0.2, "blur": 0.5, "rotation": 10})
TRAIN, VAL, SEED = 60, 40, 42


class Data(NamedTuple):
    files: list[Path]
    labels: npt.NDArray[np.int8]

    def part(self, begin: int, end: int) -> "Data":
        return Data(self.files[begin:end], self.labels[begin:end])


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Data:
    """Noise; a faint chessboard is planted in every second image, as upsampling leaves one."""
    folder = tmp_path_factory.mktemp("images")
    rng = np.random.default_rng(0)
    labels = (np.arange(TRAIN + VAL) % 2).astype(np.int8)
    board = 8 * (-1.0) ** np.add.outer(np.arange(36), np.arange(36))[..., None]
    for i, label in enumerate(labels):
        pixels = rng.normal(128, 20, (36, 36, 3)) + label * board
        image = Image.fromarray(pixels.clip(0, 255).astype(np.uint8))
        image.save(folder / f"{i}.png")
    return Data([folder / f"{i}.png" for i in range(len(labels))], labels)


class Tiny(nn.Module):
    """A convolution, its energy, and a layer; with dropout, to draw random numbers in training."""

    def __init__(self, dropout: float = 0.0) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 8, 3, bias=False), nn.BatchNorm2d(8), nn.ReLU())
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(8, 1)

    def forward(self, images: Tensor) -> Tensor:
        return self.with_features(images)[0]

    def with_features(self, images: Tensor) -> tuple[Tensor, Tensor]:
        features: Tensor = self.body(images.float() / 255 - 0.5).square().mean(dim=(2, 3))
        return self.head(self.dropout(features)).squeeze(1), features


def batches_of(
    data: Data, *, train: bool, workers: int = 0, geometry: str = "center_crop"
) -> Batches:
    dataset = ImageFiles(data.files, Preprocess(32, geometry), seed=SEED if train else None)
    order = Order(len(data.files), 8, seed=SEED if train else None)
    return Batches(dataset, order, workers)


def options_of(given: dict[str, Any]) -> TrainOptions:
    """Options of a training on images that are not changed at random, unless it says so."""
    off = {name: getattr(PLAIN, name) for name in AugmentationOptions.fields()}
    return TrainOptions.resolve({**off, "lr": 0.03, **given})


def start(
    epochs: int, *, dropout: float = 0.0, seed: int = 0, device: Device = CPU, **given: Any
) -> TrainingState:
    torch.manual_seed(seed)
    return start_training(Tiny(dropout), device, options_of({"epochs": epochs, **given}))


def run(training: TrainingState, data: Data, *, epochs: int, **changes: Any) -> TrainingState:
    """`fit` on the first images, validated on the others."""
    workers = changes.pop("workers", 0)
    geometry = changes.pop("geometry", "center_crop")
    train, val = data.part(0, TRAIN), data.part(TRAIN, TRAIN + VAL)
    fit(
        training,
        batches_of(train, train=True, workers=workers, geometry=geometry),
        changes.pop("val", batches_of(val, train=False, workers=workers, geometry=geometry)),
        torch.tensor(train.labels, dtype=torch.float32),
        val.labels,
        changes.pop("device", CPU),
        changes.pop("augmentation", PLAIN),
        unlabelled=changes.pop("unlabelled", None),
        epochs=epochs,
        patience=changes.pop("patience", 0),
        seed=changes.pop("seed", SEED),
        on_batch=changes.pop("on_batch", lambda images, loss: None),
        on_epoch=changes.pop("on_epoch", lambda training: None),
    )
    assert not changes
    return training


def weights_of(training: TrainingState) -> dict[str, Tensor]:
    return {name: v.clone() for name, v in training.network.state_dict().items()}


def assert_same(first: TrainingState, second: TrainingState) -> None:
    """Weights and history, to the last bit."""
    a, b = weights_of(first), weights_of(second)
    assert [name for name in a if not torch.equal(a[name], b[name])] == []
    assert timeless(first) == timeless(second)


def timeless(training: TrainingState) -> list[dict[str, float]]:
    return [
        {name: value for name, value in record.items() if name != "images_per_second"}
        for record in training.progress.history
    ]


# --- progress


@pytest.mark.parametrize(
    ("aucs", "best_epochs"),
    [
        ([0.5, 0.6, 0.7], [1, 2, 3]),
        ([0.7, 0.6, 0.5], [1, 1, 1]),
        ([0.5, 0.7, 0.7, 0.6, 0.8], [1, 2, 2, 2, 5]),  # a tie keeps the earlier epoch
        ([0.0, 0.0], [1, 1]),
        ([math.nan, 0.5, math.nan], [0, 2, 2]),
    ],
)
def test_the_best_epoch_is_the_first_with_the_highest_auc(
    aucs: list[float], best_epochs: list[int]
) -> None:
    progress = Progress()
    for epoch, (auc, best) in enumerate(zip(aucs, best_epochs, strict=True), 1):
        progress = progress.after({"val/auc": auc})
        assert (progress.epoch, progress.best_epoch) == (epoch, best)
        assert progress.improved == (best == epoch)
        assert progress.best_auc == (aucs[best - 1] if best else -math.inf)
    assert [record["val/auc"] for record in progress.history] == pytest.approx(aucs, nan_ok=True)


def test_progress_leaves_what_it_came_from_alone() -> None:
    first = Progress().after({"val/auc": 0.5})
    first.after({"val/auc": 0.6})
    assert first == Progress(1, 1, 0.5, [{"val/auc": 0.5}])


def test_without_validation_the_last_epoch_stands() -> None:
    progress = Progress().after({"train/loss": 1.0}).after({"train/loss": 2.0})
    assert (progress.epoch, progress.best_epoch, progress.improved) == (2, 2, True)


@pytest.mark.parametrize(
    ("epoch", "best_epoch", "epochs", "patience", "finished"),
    [
        (0, 0, 1, 1, False),
        (1, 1, 1, 5, True),
        (1, 1, 2, 5, False),
        (4, 1, 25, 3, True),
        (4, 2, 25, 3, False),
        (3, 2, 25, 1, True),
        (24, 1, 25, 0, False),  # a patience of 0 never stops
        (25, 1, 25, 0, True),
        (26, 26, 25, 7, True),
    ],
)
def test_when_a_training_is_finished(
    epoch: int, best_epoch: int, epochs: int, patience: int, finished: bool
) -> None:
    assert Progress(epoch, best_epoch, 0.5, []).finished(epochs, patience) == finished


# --- it learns


def test_a_planted_artefact_is_found(data: Data) -> None:
    training = run(start(6), data, epochs=6)
    assert training.progress.best_auc > 0.95
    assert training.progress.history[-1]["train/loss"] < training.progress.history[0]["train/loss"]


def test_there_is_nothing_to_find_in_shuffled_labels(data: Data) -> None:
    """Were a label to leak into an image's order or path, this would show it."""
    shuffled = Data(data.files, np.random.default_rng(5).permutation(data.labels))
    training = run(start(6), shuffled, epochs=6)
    for record in training.progress.history:
        assert 0.3 < record["val/auc"] < 0.7


# --- it is the loop one would write


def plain_loop(network: nn.Module, images: Tensor, labels: Tensor, epochs: int) -> list[float]:
    """Losses of all steps."""
    optimizer = torch.optim.AdamW(network.parameters(), lr=0.03, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs)
    losses = []
    network.train()
    for epoch in range(1, epochs + 1):
        order = np.arange(len(images))
        np.random.default_rng([SEED, epoch]).shuffle(order)
        for rows in np.split(order, range(8, len(images), 8)):
            loss = F.binary_cross_entropy_with_logits(network(images[rows]), labels[rows])
            optimizer.zero_grad()
            torch.autograd.backward(loss)
            optimizer.step()
            losses.append(loss.item())
        schedule.step()
    return losses


def test_fit_equals_a_plain_loop(data: Data) -> None:
    pixels = [np.asarray(Image.open(f))[2:34, 2:34] for f in data.files[:TRAIN]]
    images = torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2).float()
    torch.manual_seed(0)
    network = Tiny()
    losses = plain_loop(network, images, torch.tensor(data.labels[:TRAIN]).float(), 3)

    running: list[float] = []
    training = start(3)
    run(training, data, epochs=3, on_batch=lambda n, loss: running.append(loss))
    torch.testing.assert_close(weights_of(training), network.state_dict(), atol=1e-5, rtol=1e-4)
    steps = math.ceil(TRAIN / 8)
    sizes = [8] * (steps - 1) + [TRAIN - 8 * (steps - 1)]
    shown = [loss for loss in running if not math.isnan(loss)]
    for epoch in range(3):
        mine = losses[epoch * steps : (epoch + 1) * steps]
        means = np.cumsum(np.multiply(mine, sizes)) / np.cumsum(sizes)
        assert shown[epoch * steps : (epoch + 1) * steps] == pytest.approx(means, abs=1e-4)
        record = training.progress.history[epoch]
        assert record["train/loss"] == pytest.approx(means[-1], abs=1e-4)


def test_the_record_of_an_epoch(data: Data) -> None:
    training = run(start(2, lr=0.02), data, epochs=2)
    names = ["loss", "auc", "accuracy", "f1"]
    assert set(training.progress.history[0]) == {
        *(f"train/{name}" for name in names),
        *(f"val/{name}" for name in names),
        "lr",
        "images_per_second",
    }
    # cosine annealing over two epochs: the whole rate, then half of it
    assert [record["lr"] for record in training.progress.history] == pytest.approx([0.02, 0.01])
    val = data.part(TRAIN, TRAIN + VAL)
    logits = predict(training.network, batches_of(val, train=False).epoch(0), CPU, VAL)
    values = metrics(val.labels, logits, 0.5)
    last = training.progress.history[-1]
    assert (last["val/loss"], last["val/auc"]) == (values["nll"], values["auc"])
    assert all(record["images_per_second"] > 0 for record in training.progress.history)


def test_every_image_is_counted_in_training_and_validation(data: Data) -> None:
    seen: list[tuple[int, bool]] = []
    run(
        start(2), data, epochs=2,
        on_batch=lambda images, loss: seen.append((images, math.isnan(loss))),
    )  # fmt: skip
    assert sum(images for images, evaluating in seen if not evaluating) == 2 * TRAIN
    assert sum(images for images, evaluating in seen if evaluating) == 2 * VAL


# --- it stops


def test_it_stops_once_nothing_better_came_for_so_many_epochs(data: Data) -> None:
    """A learning rate of next to nothing: all epochs tie with the first."""
    told: list[int] = []
    training = run(
        start(20, lr=1e-12), data, epochs=20, patience=2,
        on_epoch=lambda training: told.append(training.progress.epoch),
    )  # fmt: skip
    assert told == [1, 2, 3]
    assert training.progress.best_epoch == 1


def test_a_finished_training_is_not_trained_further(data: Data) -> None:
    training = run(start(1), data, epochs=1)
    before = weights_of(training)
    run(training, data, epochs=1)
    assert all(torch.equal(v, before[k]) for k, v in weights_of(training).items())
    assert training.progress.epoch == 1


def test_without_validation_all_epochs_are_trained_to_the_same_weights(data: Data) -> None:
    with_val = run(start(3), data, epochs=3)
    without = run(start(3), data, epochs=3, val=None)
    assert (without.progress.epoch, without.progress.best_epoch) == (3, 3)
    assert not any("val/auc" in record for record in without.progress.history)
    a, b = weights_of(with_val), weights_of(without)
    assert all(torch.equal(a[name], b[name]) for name in a)


# --- it repeats itself

SETTINGS: dict[str, dict[str, Any]] = {
    "plain": {},
    "augmented": {"augmentation": CHANGED, "geometry": "random_crop"},
    "bf16": {"device": Device("cpu", "bf16", 0)},
    "workers": {"workers": 2},
}


@pytest.mark.parametrize("setting", SETTINGS)
def test_four_epochs_are_two_and_two_resumed_to_the_last_bit(
    data: Data, tmp_path: Path, setting: str
) -> None:
    device = SETTINGS[setting].get("device", CPU)
    whole = run(start(4, dropout=0.5, device=device), data, epochs=4, **SETTINGS[setting])
    first = run(start(4, dropout=0.5, device=device), data, epochs=2, **SETTINGS[setting])
    save(tmp_path / "last.safetensors", first, START)
    resumed = start(4, dropout=0.5, device=device, seed=99)
    torch.rand(100)  # whatever happened in between
    load(tmp_path / "last.safetensors", resumed)
    run(resumed, data, epochs=4, **SETTINGS[setting])
    assert_same(whole, resumed)
    assert whole.progress.epoch == resumed.progress.epoch == 4
    a, b = weights_of(whole), weights_of(first)
    assert any(not torch.equal(a[name], b[name]) for name in a)


ADAPT = {"target": "elsewhere"}  # the loop is given the images themselves
STRATEGIES: dict[str, dict[str, Any]] = {
    "focal": {"loss": "focal"},
    "label_smoothing": {"label_smoothing": 0.1},
    "mixup": {"mixup": 0.4},
    "cutmix": {"cutmix": 1},
    "mixed_either_way": {"mixup": 0.4, "cutmix": 1, "label_smoothing": 0.1, "loss": "focal"},
    "random_erasing": {"random_erasing": 0.5},
    "sgd": {"optimizer": "sgd"},
    "lookahead": {"optimizer": "lookahead", "lookahead_steps": 3},  # 16 steps in two epochs
    "ranger": {"optimizer": "ranger", "lr": 0.01},
    "dann": {"adaptation": "dann", **ADAPT},
    "coral": {"adaptation": "coral", **ADAPT},
    "fgsm": {"adversarial": "fgsm", "adversarial_from": 0.3},
    "pgd": {"adversarial": "pgd", "adversarial_steps": 2},
    "lookahead_with_dann_and_pgd": {
        "optimizer": "lookahead", "adaptation": "dann", **ADAPT, "adversarial": "pgd",
    },
}  # fmt: skip


def trained_by(
    given: dict[str, Any], data: Data, epochs: int, *, workers: int = 0, precision: str = "fp32",
    resumed: TrainingState | None = None,
) -> TrainingState:  # fmt: skip
    device = Device("cpu", precision, workers)
    training = resumed or start(4, dropout=0.5, device=device, **given)
    others = batches_of(data.part(TRAIN, TRAIN + 18), train=True, workers=workers)
    return run(
        training, data, epochs=epochs, device=device, workers=workers,
        augmentation=options_of(given), unlabelled=others if "adaptation" in given else None,
    )  # fmt: skip


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_strategy_resumed_is_the_same_to_the_last_bit_and_changes_something(
    data: Data, tmp_path: Path, strategy: str
) -> None:
    given = STRATEGIES[strategy]
    whole = trained_by(given, data, 4)
    save(tmp_path / "last.safetensors", trained_by(given, data, 2), START)
    resumed = start(4, dropout=0.5, seed=99, **given)
    torch.rand(100)  # whatever happened in between
    load(tmp_path / "last.safetensors", resumed)
    trained_by(given, data, 4, resumed=resumed)
    assert_same(whole, resumed)
    plain = trained_by({}, data, 4)
    a, b = weights_of(whole), weights_of(plain)
    assert any(not torch.equal(a[name], b[name]) for name in a)
    mine, others = whole.objective.state_dict(), resumed.objective.state_dict()
    assert all(torch.equal(mine[name], others[name]) for name in mine)
    assert bool(mine) == (given.get("adaptation") == "dann")


@pytest.mark.parametrize("strategy", ["mixed_either_way", "random_erasing", "dann"])
def test_the_number_of_workers_changes_nothing_with_a_strategy(data: Data, strategy: str) -> None:
    given = STRATEGIES[strategy]
    assert_same(trained_by(given, data, 2), trained_by(given, data, 2, workers=2))


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_strategy_trains_in_bf16(data: Data, strategy: str) -> None:
    training = trained_by(STRATEGIES[strategy], data, 1, precision="bf16")
    assert all(value.isfinite().all() for value in weights_of(training).values())
    assert training.network.head.weight.dtype == torch.float32  # type: ignore[union-attr]


def test_unlabelled_images_are_gone_through_again_in_another_order_and_otherwise_changed(
    data: Data,
) -> None:
    """Eight steps an epoch, and three batches of 18 unlabelled images."""
    train, others = data.part(0, TRAIN), data.part(TRAIN, TRAIN + 18)
    changed = AugmentationOptions.resolve({"hflip": 0, "jitter": 0.5})

    def given(epoch: int) -> list[Tensor]:
        steps = prepared(
            batches_of(train, train=True), epoch, torch.zeros(TRAIN), CPU, changed, SEED,
            batches_of(others, train=True),
        )  # fmt: skip
        return [step.unlabelled for step in steps if step.unlabelled is not None]

    first, again, second = given(1), given(1), given(2)
    assert [len(images) for images in first] == [8, 8, 2, 8, 8, 2, 8, 8]
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    images = torch.cat([*first, *second])
    assert len(torch.unique(images, dim=0)) == len(images)
    assert all(batch.is_contiguous(memory_format=torch.channels_last) for batch in first)


def test_steps_say_how_much_of_the_training_is_done(data: Data) -> None:
    train = batches_of(data.part(0, 20), train=True)
    steps = list(prepared(train, 3, torch.zeros(20), CPU, PLAIN, SEED))
    assert [step.epochs for step in steps] == pytest.approx([2, 2 + 1 / 3, 2 + 2 / 3])
    assert all(step.unlabelled is None for step in steps)


def test_early_stopping_counts_on_over_a_resume(data: Data, tmp_path: Path) -> None:
    first = run(start(20, lr=1e-12), data, epochs=2, patience=3)
    save(tmp_path / "last.safetensors", first, START)
    resumed = start(20)
    load(tmp_path / "last.safetensors", resumed)
    run(resumed, data, epochs=20, patience=3)
    assert resumed.progress.epoch == 4


def test_the_number_of_workers_changes_nothing(data: Data) -> None:
    changes = SETTINGS["augmented"]
    alone = run(start(2, dropout=0.5), data, epochs=2, **changes)
    helped = run(start(2, dropout=0.5), data, epochs=2, workers=2, **changes)
    assert_same(alone, helped)


@pytest.mark.parametrize("changes", [{"seed": 43}, {"augmentation": CHANGED}])
def test_another_seed_or_augmentation_changes_something(
    data: Data, changes: dict[str, Any]
) -> None:
    one = run(start(1, dropout=0.5), data, epochs=1)
    other = run(start(1, dropout=0.5), data, epochs=1, **changes)
    a, b = weights_of(one), weights_of(other)
    assert any(not torch.equal(a[name], b[name]) for name in a)


def augmented(data: Data, *, epoch: int, seed: int, batch_size: int) -> dict[int, Tensor]:
    """What training sees of each row; the rows' numbers go in and come back as their labels."""
    files = data.files[:20]
    batches = Batches(
        ImageFiles(files, Preprocess(32, "center_crop"), seed=SEED),
        Order(len(files), batch_size, seed=SEED),
        0,
    )
    found: dict[int, Tensor] = {}
    for step in prepared(batches, epoch, torch.arange(20.0), CPU, CHANGED, seed):
        assert step.images.is_contiguous(memory_format=torch.channels_last)
        found.update(zip(step.targets.int().tolist(), step.images, strict=True))
    return found


def test_how_an_image_is_changed_depends_on_seed_epoch_and_row_alone(data: Data) -> None:
    first, other_batches, other_epoch, other_seed = (
        augmented(data, epoch=epoch, seed=seed, batch_size=size)
        for epoch, seed, size in ((1, 7, 5), (1, 7, 20), (2, 7, 5), (1, 8, 5))
    )
    assert sorted(first) == list(range(20))
    for row, image in first.items():
        torch.testing.assert_close(other_batches[row], image, atol=1e-3, rtol=0)
    for other in (other_epoch, other_seed):
        assert sum((other[row] - image).abs().max() > 1 for row, image in first.items()) > 15


# --- it says when it breaks


class Breaking(Tiny):
    """Answers so from some training step on."""

    def __init__(self, after: int, answer: float) -> None:
        super().__init__()
        self.steps, self.after, self.answer = 0, after, answer

    def forward(self, images: Tensor) -> Tensor:
        logits, _ = self.with_features(images)
        self.steps += self.training
        return logits * self.answer if self.training and self.steps > self.after else logits


@pytest.mark.parametrize("answer", [math.nan, math.inf])
@pytest.mark.parametrize(
    ("after", "where"), [(0, "epoch 1, step 1"), (2, "epoch 1, step 3"), (9, "epoch 2, step 2")]
)
def test_a_loss_that_is_no_number_ends_it_naming_epoch_and_step(
    data: Data, after: int, where: str, answer: float
) -> None:
    assert math.ceil(TRAIN / 8) == 8
    training = start_training(Breaking(after, answer), CPU, options_of({"epochs": 3}))
    with pytest.raises(Diverged, match=where) as caught:
        run(training, data, epochs=3)
    assert "--lr" in str(caught.value)
    assert all(p.isfinite().all() for p in training.network.parameters())


def test_weights_that_break_in_the_last_step_are_found_in_validation(data: Data) -> None:
    """That step's own loss was still a number; the next is taken by the evaluation."""
    few = data.part(0, 8)
    training = start(1, lr=1e38)
    with pytest.raises(Diverged, match="epoch 1"):
        fit(
            training,
            batches_of(few, train=True),
            batches_of(few, train=False),
            torch.tensor(few.labels, dtype=torch.float32),
            few.labels,
            CPU,
            PLAIN,
            epochs=1,
            patience=0,
            seed=SEED,
            on_batch=lambda images, loss: None,
            on_epoch=lambda training: None,
        )


# --- precision


def one_step(precision: str) -> tuple[dict[str, Tensor], npt.NDArray[np.float64]]:
    """The change of each weight by one step of gradient descent, and the logits."""
    torch.manual_seed(0)
    network = Tiny()
    before = {name: p.detach().clone() for name, p in network.named_parameters()}
    device = Device("cpu", precision, 0)
    optimizer = torch.optim.SGD(network.parameters(), lr=1.0)
    schedule = torch.optim.lr_scheduler.ConstantLR(optimizer)
    objective = Objective(options_of({}), device, network)
    training = TrainingState(network, objective, optimizer, schedule, device.scaler())
    images = torch.randint(0, 256, (16, 3, 32, 32), generator=torch.Generator().manual_seed(0))
    targets = torch.arange(16) % 2
    step = Step(images.float(), targets.float())
    logits, seen = train_epoch(training, [step], lambda images, loss: None)
    assert seen.tolist() == targets.tolist()
    return {name: p.detach() - before[name] for name, p in network.named_parameters()}, logits


def test_a_step_in_bf16_is_close_to_one_in_fp32_and_not_the_same() -> None:
    (exact, exact_logits), (rough, rough_logits) = one_step("fp32"), one_step("bf16")
    assert not np.array_equal(exact_logits, rough_logits)
    assert rough_logits == pytest.approx(exact_logits, abs=0.01)
    for name in ("head.weight", "head.bias", "body.1.weight", "body.1.bias"):
        difference = (rough[name] - exact[name]).norm() / exact[name].norm()
        assert difference < 0.03, name
        assert rough[name].dtype == torch.float32


def test_evaluation_is_in_fp32_whatever_training_used(data: Data) -> None:
    network = start(1).network
    val = data.part(TRAIN, TRAIN + VAL)
    exact, same = (
        predict(network, batches_of(val, train=False).epoch(0), Device("cpu", precision, 0), VAL)
        for precision in ("fp32", "bf16")
    )
    assert np.array_equal(exact, same)


# --- prediction


def test_predictions_are_in_the_order_of_the_rows_and_nan_for_unreadable_ones(
    data: Data, tmp_path: Path
) -> None:
    bad, absent = tmp_path / "bad.png", tmp_path / "absent.png"
    bad.write_bytes(data.files[0].read_bytes()[:200])
    files = [*data.files[:9], bad, *data.files[9:12], absent]
    mixed = Data(files, np.zeros(len(files), dtype=np.int8))
    network = start(1).network
    counted: list[int] = []
    logits = predict(
        network, batches_of(mixed, train=False).epoch(0), CPU, len(files),
        lambda images, loss: counted.append(images),
    )  # fmt: skip
    assert np.flatnonzero(np.isnan(logits)).tolist() == [9, 13]
    good = predict(network, batches_of(data.part(0, 12), train=False).epoch(0), CPU, 12)
    assert logits[~np.isnan(logits)] == pytest.approx(good, abs=1e-6)
    assert len(set(good)) == 12
    assert sum(counted) == len(files)


def test_rows_that_no_batch_holds_are_nan_and_a_batch_may_be_empty(
    data: Data, tmp_path: Path
) -> None:
    absent = Data([tmp_path / "absent.png"] * 3, np.zeros(3, dtype=np.int8))
    network = start(1).network
    assert np.isnan(predict(network, batches_of(absent, train=False).epoch(0), CPU, 3)).all()
    assert np.isnan(predict(network, [], CPU, 2)).tolist() == [True, True]


def test_predicting_changes_no_weight_and_no_statistic(data: Data) -> None:
    training = start(1)
    training.network.train()
    before = weights_of(training)
    predict(training.network, batches_of(data.part(0, 8), train=False).epoch(0), CPU, 8)
    assert all(torch.equal(v, before[k]) for k, v in weights_of(training).items())
    assert not training.network.training


# --- the start


def test_a_training_starts_with_adamw_and_a_cosine_over_all_epochs() -> None:
    given = {"lr": 0.1, "weight_decay": 0.05, "epochs": 4}
    training = start_training(Tiny(), CPU, TrainOptions.resolve(given))
    (group,) = training.optimizer.param_groups
    assert isinstance(training.optimizer, torch.optim.AdamW)
    assert (group["lr"], group["weight_decay"], group["betas"]) == (0.1, 0.05, (0.9, 0.999))
    rates = []
    for _ in range(4):
        rates.append(group["lr"])
        training.optimizer.step()
        training.schedule.step()
    assert [*rates, group["lr"]] == pytest.approx([0.1, 0.0853553, 0.05, 0.0146447, 0.0], abs=1e-7)
    assert training.progress == replace(Progress())
    weight = training.network.body[0].weight  # type: ignore[index, union-attr]
    assert weight.is_contiguous(memory_format=torch.channels_last)

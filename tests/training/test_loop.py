"""The loop learns, stops, resumes and repeats itself exactly, on images of 32 pixels."""

import copy
import math
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn
from torch._dynamo.utils import counters
from torch.amp.grad_scaler import GradScaler

from synthdetect.evaluation.metrics import metrics
from synthdetect.images.batches import Batches, ImageFiles, Order
from synthdetect.images.geometry import Preprocess
from synthdetect.training import loop
from synthdetect.training.checkpoint import load, save
from synthdetect.training.devices import Device
from synthdetect.training.loop import (
    Diverged,
    Hooks,
    Progress,
    TrainingData,
    TrainingState,
    fit,
    predict,
    start_training,
    steps_of,
    train_epoch,
)
from synthdetect.training.objective import Step
from tests.training.conftest import CPU, START, Tiny, options_of

CHANGED: dict[str, Any] = {"hflip": 0.5, "jitter": 0.2, "blur": 0.5, "rotation": 10}
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


def batches_of(
    data: Data, *, train: bool, workers: int = 0, geometry: str = "center_crop", size: int = 8
) -> Batches:
    seed = SEED if train else None
    dataset = ImageFiles(data.files, Preprocess(32, geometry), targets=data.labels, seed=seed)
    return Batches(dataset, Order(len(data.files), size, seed=seed), workers)


def start(
    epochs: int, *, dropout: float = 0.0, weights: int = 0, device: Device = CPU, **given: Any
) -> TrainingState:
    """A training whose initial weights are drawn with the seed `weights`."""
    torch.manual_seed(weights)
    return start_training(Tiny(dropout), device, options_of(epochs=epochs, **given))


def run(
    training: TrainingState, data: Data, *, epochs: int | None = None, val: bool = True,
    unlabelled: Batches | None = None, hooks: Hooks | None = None, **reading: Any,
) -> TrainingState:  # fmt: skip
    """`fit` on the first images, validated on the others."""
    held_out = data.part(TRAIN, TRAIN + VAL)
    batches = TrainingData(
        batches_of(data.part(0, TRAIN), train=True, **reading),
        batches_of(held_out, train=False, **reading) if val else None,
        unlabelled,
        unlabelled and copy.copy(unlabelled),
    )
    fit(training, batches, hooks or Hooks(), epochs=epochs)
    return training


class Recording(Hooks):
    """Keeps what it is told, in order."""

    def __init__(self) -> None:
        self.batches: list[tuple[int, float]] = []
        self.calls: list[str] = []

    def on_batch(self, images: int, loss: float) -> None:
        self.batches.append((images, loss))
        self.calls.append("batch")

    def on_epoch(self, training: TrainingState) -> None:
        self.calls.append(f"epoch {training.progress.epoch}")


def weights_of(training: TrainingState) -> dict[str, Tensor]:
    return {name: v.clone() for name, v in training.network.state_dict().items()}


def assert_same(first: TrainingState, second: TrainingState) -> None:
    """Weights, those that are evaluated too, and history, to the last bit."""
    assert same_weights(first, second)
    assert same_weights(first, second, evaluated=True)
    assert timeless(first) == timeless(second)


def same_weights(first: TrainingState, second: TrainingState, *, evaluated: bool = False) -> bool:
    a, b = (
        (training.evaluated if evaluated else training.network).state_dict()
        for training in (first, second)
    )
    return all(torch.equal(a[name], b[name]) for name in a)


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
    training = run(start(6), data)
    assert training.progress.best_auc > 0.95
    assert training.progress.history[-1]["train/loss"] < training.progress.history[0]["train/loss"]


def test_there_is_nothing_to_find_in_shuffled_labels(data: Data) -> None:
    """Were a label to leak into an image's order or path, this would show it."""
    shuffled = Data(data.files, np.random.default_rng(5).permutation(data.labels))
    training = run(start(6), shuffled)
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

    hooks = Recording()
    training = run(start(3), data, hooks=hooks)
    torch.testing.assert_close(weights_of(training), network.state_dict(), atol=1e-5, rtol=1e-4)
    steps = math.ceil(TRAIN / 8)
    sizes = [8] * (steps - 1) + [TRAIN - 8 * (steps - 1)]
    shown = [loss for _, loss in hooks.batches if not math.isnan(loss)]
    for epoch in range(3):
        mine = losses[epoch * steps : (epoch + 1) * steps]
        means = np.cumsum(np.multiply(mine, sizes)) / np.cumsum(sizes)
        assert shown[epoch * steps : (epoch + 1) * steps] == pytest.approx(means, abs=1e-4)
        record = training.progress.history[epoch]
        assert record["train/loss"] == pytest.approx(means[-1], abs=1e-4)


def test_the_record_of_an_epoch(data: Data) -> None:
    training = run(start(2, lr=0.02), data)
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
    hooks = Recording()
    run(start(2), data, hooks=hooks)
    assert sum(images for images, loss in hooks.batches if not math.isnan(loss)) == 2 * TRAIN
    assert sum(images for images, loss in hooks.batches if math.isnan(loss)) == 2 * VAL


def test_the_hooks_are_called_after_each_batch_and_after_each_epoch(data: Data) -> None:
    """Eight batches of training and five of validation."""
    hooks = Recording()
    run(start(2), data, hooks=hooks)
    assert hooks.calls == ["batch"] * 13 + ["epoch 1"] + ["batch"] * 13 + ["epoch 2"]


def test_the_hook_of_an_epoch_sees_its_metrics_and_weights(data: Data) -> None:
    seen: list[tuple[float, dict[str, Tensor]]] = []

    class Seeing(Hooks):
        def on_epoch(self, training: TrainingState) -> None:
            seen.append((training.progress.history[-1]["val/loss"], weights_of(training)))

    training = run(start(2), data, hooks=Seeing())
    assert [loss for loss, _ in seen] == [r["val/loss"] for r in training.progress.history]
    assert all(torch.equal(v, seen[1][1][k]) for k, v in weights_of(training).items())
    assert not torch.equal(seen[0][1]["last.weight"], seen[1][1]["last.weight"])


# --- it stops


def test_it_stops_once_nothing_better_came_for_so_many_epochs(data: Data) -> None:
    """A learning rate of next to nothing: all epochs tie with the first."""
    hooks = Recording()
    training = run(start(20, lr=1e-12, patience=2), data, hooks=hooks)
    assert [call for call in hooks.calls if call != "batch"] == ["epoch 1", "epoch 2", "epoch 3"]
    assert training.progress.best_epoch == 1


def test_a_finished_training_is_not_trained_further(data: Data) -> None:
    training = run(start(1), data)
    before = weights_of(training)
    run(training, data)
    assert all(torch.equal(v, before[k]) for k, v in weights_of(training).items())
    assert training.progress.epoch == 1


def test_without_validation_all_epochs_are_trained_to_the_same_weights(data: Data) -> None:
    with_val = run(start(3), data)
    without = run(start(3, patience=1), data, val=False)
    assert (without.progress.epoch, without.progress.best_epoch) == (3, 3)
    assert not any("val/auc" in record for record in without.progress.history)
    assert same_weights(with_val, without)


# --- it repeats itself


class Setting(NamedTuple):
    """How a training of four epochs is set up: its options, its device and how images are read."""

    given: dict[str, Any] = {}  # noqa: RUF012
    reading: dict[str, Any] = {}  # noqa: RUF012
    precision: str = "fp32"

    def start(self, weights: int = 0) -> TrainingState:
        device = Device("cpu", self.precision, 0)
        return start(4, dropout=0.5, weights=weights, device=device, **self.given)

    def run(self, training: TrainingState, data: Data, epochs: int = 4) -> TrainingState:
        others = batches_of(data.part(TRAIN, TRAIN + 18), train=True, **self.reading)
        unlabelled = others if "target" in self.given else None
        return run(training, data, epochs=epochs, unlabelled=unlabelled, **self.reading)


ADAPT = {"target": "elsewhere"}  # the loop is given the images themselves
TRUSTING = {**ADAPT, "guard_precision": 0, "pseudo_label_confidence": 0.6}
SETTINGS: dict[str, Setting] = {
    "augmented": Setting(CHANGED, {"geometry": "random_crop"}),
    "bf16": Setting(precision="bf16"),
    "compiled": Setting({"compile": True}),
    "focal": Setting({"loss": "focal"}),
    "label_smoothing": Setting({"label_smoothing": 0.1}),
    "mixup": Setting({"mixup": 0.4}),
    "cutmix": Setting({"cutmix": 1}),
    "mixed_either_way": Setting(
        {"mixup": 0.4, "cutmix": 1, "label_smoothing": 0.1, "loss": "focal"}
    ),
    "random_erasing": Setting({"random_erasing": 0.5}),
    "sgd": Setting({"optimizer": "sgd"}),
    # 16 steps in two epochs
    "lookahead": Setting({"optimizer": "lookahead", "lookahead_steps": 3}),
    "ranger": Setting({"optimizer": "ranger", "lr": 0.01}),
    "dann": Setting({"adaptation": "dann", **ADAPT}),
    "coral": Setting({"adaptation": "coral", **ADAPT}),
    "mmd": Setting({"adaptation": "mmd", **ADAPT}),
    "adabn": Setting({"adaptation": "adabn", **ADAPT}),
    "adabn_of_slow_weights": Setting({"adaptation": "adabn", **ADAPT, "optimizer": "lookahead"}),
    "mean_teacher": Setting({"semi_supervised": "mean_teacher", **TRUSTING, "ema_decay": 0.8}),
    "fixmatch": Setting({"semi_supervised": "fixmatch", **TRUSTING}),
    "fgsm": Setting({"adversarial": "fgsm", "adversarial_from": 0.3}),
    "pgd": Setting({"adversarial": "pgd", "adversarial_steps": 2}),
    "lookahead_with_dann_and_pgd": Setting(
        {"optimizer": "lookahead", "adaptation": "dann", **ADAPT, "adversarial": "pgd"}
    ),
    "warmup": Setting({"warmup_epochs": 3}),  # which the first two epochs do not end
    "constant_after_warmup": Setting({"schedule": "constant", "warmup_epochs": 1}),
    "constant": Setting({"schedule": "constant"}),
    "no_decay_of_norms": Setting({"decay_norms": False, "weight_decay": 1}),
    "clip_norm": Setting({"clip_norm": 0.1}),
    "ema": Setting({"average": "ema", "ema_decay": 0.9}),
    "swa": Setting({"average": "swa", "swa_from": 0.05}),  # of 25 epochs: from the second on
    "adabn_of_ema": Setting({"average": "ema", "adaptation": "adabn", **ADAPT}),
    "accumulate": Setting({"accumulate": 3}),  # of 8 batches, so that the last group has 2
    "all_of_these": Setting(
        {"warmup_epochs": 3, "decay_norms": False, "weight_decay": 1, "clip_norm": 0.1,
         "accumulate": 3, "optimizer": "lookahead", "lookahead_steps": 2}
    ),
}  # fmt: skip

# Compiling takes most of a minute, and a quick test shows that compiled steps are those of others.
_SLOW = (pytest.mark.long, pytest.mark.thorough)
EACH = [pytest.param(name, marks=_SLOW if name == "compiled" else ()) for name in SETTINGS]


@pytest.fixture(scope="module")
def plain(data: Data) -> TrainingState:
    """Four epochs with the defaults, and dropout."""
    return Setting().run(Setting().start(), data)


def resumed(setting: Setting, data: Data, path: Path) -> TrainingState:
    """Four epochs, of which a checkpoint holds the first two."""
    save(path, setting.run(setting.start(), data, epochs=2), START)
    training = setting.start(weights=99)
    torch.rand(100)  # whatever happened in between
    load(path, training)
    return setting.run(training, data)


def test_four_epochs_are_two_and_two_resumed_to_the_last_bit(
    data: Data, tmp_path: Path, plain: TrainingState
) -> None:
    assert_same(plain, resumed(Setting(), data, tmp_path / "last.safetensors"))
    assert plain.progress.epoch == 4
    assert not same_weights(plain, Setting().run(Setting().start(), data, epochs=2))


def test_so_they_are_with_worker_processes(
    data: Data, tmp_path: Path, plain: TrainingState
) -> None:
    helped = Setting(reading={"workers": 2})
    assert_same(plain, resumed(helped, data, tmp_path / "last.safetensors"))


@pytest.mark.parametrize("name", EACH)
def test_a_setting_resumed_is_the_same_to_the_last_bit_and_changes_something(
    data: Data, tmp_path: Path, plain: TrainingState, name: str
) -> None:
    setting = SETTINGS[name]
    whole = setting.run(setting.start(), data)
    other = resumed(setting, data, tmp_path / "last.safetensors")
    assert_same(whole, other)
    assert not same_weights(whole, plain, evaluated=True)
    mine, others = whole.objective.state_dict(), other.objective.state_dict()
    assert all(torch.equal(mine[key], others[key]) for key in mine)
    stateful = {setting.given.get(name) for name in ("adaptation", "semi_supervised")}
    assert bool(mine) == bool(stateful & {"dann", "fixmatch"})


@pytest.mark.parametrize(
    "name", ["augmented", "mixed_either_way", "random_erasing", "dann", "adabn", "lookahead"]
)
def test_the_number_of_workers_changes_nothing(data: Data, name: str) -> None:
    alone = SETTINGS[name]
    helped = alone._replace(reading={**alone.reading, "workers": 2})
    assert_same(alone.run(alone.start(), data, 2), helped.run(helped.start(), data, 2))


@pytest.mark.parametrize("name", EACH)
def test_a_setting_trains_in_bf16(data: Data, name: str) -> None:
    setting = SETTINGS[name]._replace(precision="bf16")
    training = setting.run(setting.start(), data, epochs=1)
    assert all(value.isfinite().all() for value in weights_of(training).values())
    assert training.network.head.weight.dtype == torch.float32


def test_unlabelled_images_are_gone_through_again_in_another_order_and_otherwise_changed(
    data: Data,
) -> None:
    """Eight steps an epoch, and three batches of 18 unlabelled images."""
    train, others = data.part(0, TRAIN), data.part(TRAIN, TRAIN + 18)
    training = start(5, jitter=0.5, adaptation="dann", **ADAPT)

    def given(epoch: int) -> list[Tensor]:
        batches = TrainingData(
            batches_of(train, train=True), unlabelled=batches_of(others, train=True)
        )
        steps = steps_of(training, batches, epoch)
        return [step.unlabelled for step in steps if step.unlabelled is not None]

    first, again, second = given(1), given(1), given(2)
    assert [len(images) for images in first] == [8, 8, 2, 8, 8, 2, 8, 8]
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    images = torch.cat([*first, *second])
    assert len(torch.unique(images, dim=0)) == len(images)
    assert all(batch.is_contiguous(memory_format=torch.channels_last) for batch in first)


def test_steps_say_how_much_of_the_training_is_done(data: Data) -> None:
    train = batches_of(data.part(0, 20), train=True)
    steps = list(steps_of(start(5), TrainingData(train), 3))
    assert [step.epochs for step in steps] == pytest.approx([2, 2 + 1 / 3, 2 + 2 / 3])
    assert all(step.unlabelled is None for step in steps)


def test_the_targets_of_steps_are_the_labels_of_their_images(data: Data) -> None:
    part = data.part(0, 20)
    pixels = [np.asarray(Image.open(file))[2:34, 2:34] for file in part.files]
    known = {image.tobytes(): label for image, label in zip(pixels, part.labels, strict=True)}
    steps = list(steps_of(start(5), TrainingData(batches_of(part, train=True)), 1))
    images = torch.cat([step.images for step in steps]).permute(0, 2, 3, 1).numpy()
    targets = torch.cat([step.targets for step in steps])
    assert targets.dtype == torch.float32
    assert targets.tolist() == [known[image.astype(np.uint8).tobytes()] for image in images]


def test_early_stopping_counts_on_over_a_resume(data: Data, tmp_path: Path) -> None:
    first = run(start(20, lr=1e-12, patience=3), data, epochs=2)
    save(tmp_path / "last.safetensors", first, START)
    training = start(20, patience=3)
    load(tmp_path / "last.safetensors", training)
    run(training, data)
    assert training.progress.epoch == 4


@pytest.mark.parametrize("changes", [{"seed": 43}, CHANGED])
def test_another_seed_or_augmentation_changes_something(
    data: Data, changes: dict[str, Any]
) -> None:
    """The seed of dropout and the like; the order of the images is the same."""
    one = run(start(1, dropout=0.5), data)
    assert not same_weights(one, run(start(1, dropout=0.5, **changes), data))


def augmented(data: Data, *, epoch: int, seed: int, batch_size: int) -> dict[int, Tensor]:
    """What training sees of each row; the rows' numbers go in and come back as their labels."""
    rows = Data(data.files[:20], np.arange(20, dtype=np.int8))
    batches = TrainingData(batches_of(rows, train=True, size=batch_size))
    found: dict[int, Tensor] = {}
    for step in steps_of(start(5, seed=seed, **CHANGED), batches, epoch):
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
    """A network whose logits are wrong from some training step on."""

    def __init__(self, after: int, factor: float) -> None:
        super().__init__()
        self.steps, self.after, self.factor = 0, after, factor

    def outputs(self, images: Tensor) -> Tensor:
        logits = super().outputs(images)
        self.steps += self.training
        return logits * self.factor if self.training and self.steps > self.after else logits


@pytest.mark.parametrize("answer", [math.nan, math.inf])
@pytest.mark.parametrize(
    ("after", "where"), [(0, "epoch 1, step 1"), (2, "epoch 1, step 3"), (9, "epoch 2, step 2")]
)
def test_a_loss_that_is_no_number_ends_it_naming_epoch_and_step(
    data: Data, after: int, where: str, answer: float
) -> None:
    assert math.ceil(TRAIN / 8) == 8
    training = start_training(Breaking(after, answer), CPU, options_of(epochs=3))
    with pytest.raises(Diverged, match=where) as caught:
        run(training, data)
    assert "--lr" in str(caught.value)
    assert all(p.isfinite().all() for p in training.network.parameters())


def test_weights_that_break_in_the_last_step_are_found_in_validation(data: Data) -> None:
    """That step's own loss was still a number; the next is taken by the evaluation."""
    few = data.part(0, 8)
    batches = TrainingData(batches_of(few, train=True), batches_of(few, train=False))
    with pytest.raises(Diverged, match="epoch 1"):
        fit(start(1, lr=1e38), batches, Hooks())


# --- compiled steps


def test_compiled_steps_have_the_losses_of_plain_ones(data: Data) -> None:
    """The last batch of the epoch is smaller; validation is not compiled."""
    counters.clear()
    compiled, plain = (
        run(start(1, compile=compiled, lr=0.01), data, size=25).progress.history[0]
        for compiled in (True, False)
    )
    assert counters["stats"]["unique_graphs"] == 2
    for name in ("train/loss", "val/loss", "val/auc"):
        assert compiled[name] == pytest.approx(plain[name], rel=1e-4)


# --- the loss is read now and then on an accelerator


class Accelerator(Device):
    """A device that says it is an accelerator, and computes on the CPU."""

    @property
    def torch(self) -> torch.device:
        return torch.device("cpu")


ACCELERATOR = Accelerator("cuda", "fp32", 0)


def test_the_losses_of_an_accelerator_are_those_of_a_cpu(
    data: Data, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Eight steps an epoch; the mean that the hooks see is of the steps that have been read."""
    shown = {}
    for device, every in ((CPU, 99), (ACCELERATOR, 3), (ACCELERATOR, 20)):
        monkeypatch.setattr(loop, "_READ_EVERY", every)
        hooks = Recording()
        training = run(start(2, device=device), data, hooks=hooks)
        shown[device.kind, every] = [loss for _, loss in hooks.batches]
        if device is CPU:
            plain = training
        assert_same(plain, training)
    on_cpu = np.array(shown["cpu", 99]).reshape(2, 13)  # a row is an epoch; 5 are of validation
    assert np.isfinite(on_cpu[:, :8]).all()
    assert np.isnan(on_cpu[:, 8:]).all()
    by_three, by_twenty = (np.array(shown["cuda", n]).reshape(2, 13) for n in (3, 20))
    read = [2, 2, 2, 5, 5, 5]  # the step up to which the loss was read, at steps 2 to 7
    assert np.isnan(by_three[:, :2]).all()
    assert np.array_equal(by_three[:, 2:8], on_cpu[:, read])
    assert np.isnan(by_twenty).all()


@pytest.mark.parametrize(("every", "steps"), [(1, 3), (2, 4), (3, 3), (20, 8)])
def test_a_loss_that_is_no_number_in_step_3_is_found_when_it_is_read(
    data: Data, monkeypatch: pytest.MonkeyPatch, every: int, steps: int
) -> None:
    """At the end of the epoch, which has eight steps, if not before."""
    monkeypatch.setattr(loop, "_READ_EVERY", every)
    network = Breaking(2, math.nan)
    hooks = Recording()
    training = start_training(network, ACCELERATOR, options_of(epochs=3))
    with pytest.raises(Diverged, match=r"epoch 1, step 3\."):
        run(training, data, hooks=hooks)
    assert network.steps == steps
    assert not [call for call in hooks.calls if call != "batch"]
    assert training.progress == Progress()


def test_the_epoch_in_which_a_loss_is_no_number_is_named_on_an_accelerator(data: Data) -> None:
    training = start_training(Breaking(10, math.inf), ACCELERATOR, options_of(epochs=3))
    with pytest.raises(Diverged, match=r"inf|nan") as caught:
        run(training, data)
    assert "epoch 2, step 3." in str(caught.value)
    assert training.progress.epoch == 1


class Valueless(Device):
    """An accelerator whose tensors have shapes and no values, so that fetching one fails."""

    @property
    def torch(self) -> torch.device:
        return torch.device("meta")


@pytest.mark.parametrize(
    "given",
    [
        CHANGED,
        {"random_erasing": 0.5, "mixup": 0.4, "cutmix": 1.0},
        {"clip_norm": 1.0, "average": "ema"},
        {"loss": "focal", "label_smoothing": 0.1, "pos_weight": "2"},
        {"adversarial": "pgd", "adversarial_from": 0.0},
        {"shards": 2},
    ],
    ids=lambda given: " ".join(given),
)
def test_no_step_waits_for_an_accelerator(data: Data, given: dict[str, Any]) -> None:
    """All steps are taken; the loss is read at the end of the epoch, and then there is none.

    Fused steps of the optimizer are not for `meta`, hence `mps`, which has none.
    """
    training = start(1, device=Valueless("mps", "fp32", 0), **given)
    hooks = Recording()
    with pytest.raises((NotImplementedError, RuntimeError), match="meta"):
        run(training, data, hooks=hooks)
    assert len(hooks.batches) == 8 // given.get("shards", 1)


# --- an update of the weights


def noise_steps(*sizes: int) -> list[Step]:
    """Steps on noise, of so many images each."""
    generator = torch.Generator().manual_seed(1)
    images = torch.rand(sum(sizes), 3, 12, 12, generator=generator) * 255
    targets = (torch.arange(sum(sizes)) % 3 == 0).float()
    return [
        Step(pixels.contiguous(memory_format=torch.channels_last), labels)
        for pixels, labels in zip(
            torch.split(images, list(sizes)), torch.split(targets, list(sizes)), strict=True
        )
    ]


def begun(*, norm: bool = True, **given: Any) -> TrainingState:
    torch.manual_seed(0)
    return start_training(Tiny(norm=norm), CPU, options_of(**given))


def gradients_of(training: TrainingState, steps: list[Step]) -> list[dict[str, Tensor]]:
    """Train an epoch; return the gradient of every update as the optimizer sees it."""
    seen = []

    def keep(*_: Any) -> None:
        named = training.network.named_parameters()
        seen.append({name: p.grad.clone() for name, p in named if p.grad is not None})

    training.optimizer.register_step_pre_hook(keep)
    train_epoch(training, steps, Hooks())
    return seen


def norm_of(gradient: dict[str, Tensor]) -> float:
    return float(torch.cat([g.flatten() for g in gradient.values()]).norm())


def test_with_the_defaults_an_epoch_is_a_plain_loop_to_the_last_bit() -> None:
    steps = noise_steps(8, 8, 5)
    training, same = begun(), begun()
    logits, targets = train_epoch(training, steps, Hooks())
    optimizer = torch.optim.AdamW(same.network.parameters(), lr=0.03, weight_decay=0.01, fused=True)
    expected = []
    same.network.train()
    for step in steps:
        optimizer.zero_grad()
        answers = same.network(step.images)
        expected.append(answers.detach())
        torch.autograd.backward(F.binary_cross_entropy_with_logits(answers, step.targets))
        optimizer.step()
    assert same_weights(training, same)
    assert np.array_equal(logits, torch.cat(expected).double().numpy())
    assert np.array_equal(targets, torch.cat([step.targets for step in steps]).double().numpy())


@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_gradient_is_clipped_to_its_largest_norm(accumulate: int) -> None:
    steps = noise_steps(8, 8, 8, 8)
    free = gradients_of(begun(accumulate=accumulate), steps)
    largest = norm_of(free[0]) / 2
    clipped = gradients_of(begun(accumulate=accumulate, clip_norm=largest), steps)
    assert len(free) == len(clipped) == 4 / accumulate
    assert norm_of(clipped[0]) == pytest.approx(largest, rel=1e-4)
    assert all(norm_of(gradient) <= largest * (1 + 1e-6) for gradient in clipped)
    for name, gradient in clipped[0].items():  # the direction stays
        torch.testing.assert_close(gradient, free[0][name] / 2, rtol=1e-4, atol=1e-7)


def test_a_gradient_that_is_small_enough_is_not_changed() -> None:
    steps = noise_steps(8, 8)
    training, free = begun(clip_norm=1e6), begun()
    for gradient, expected in zip(
        gradients_of(training, steps), gradients_of(free, steps), strict=True
    ):
        assert all(torch.equal(gradient[name], expected[name]) for name in expected)
    assert same_weights(training, free)


@pytest.mark.parametrize("given", [{}, {"clip_norm": 0.05}, {"accumulate": 2}])
def test_scaling_the_loss_changes_no_update(given: dict[str, Any]) -> None:
    """By a power of two, so that nothing is rounded; a gradient is clipped without the scale."""
    steps = noise_steps(8, 8, 8)
    training, scaled = begun(**given), begun(**given)
    scaled.scaler = GradScaler("cpu", enabled=True, init_scale=1024.0, growth_interval=99)
    train_epoch(training, steps, Hooks())
    train_epoch(scaled, steps, Hooks())
    torch.testing.assert_close(weights_of(training), weights_of(scaled), rtol=1e-5, atol=1e-6)


def test_the_weights_of_an_adaptation_are_clipped_too(data: Data) -> None:
    training = start(1, adaptation="dann", target="elsewhere", clip_norm=1e-3)
    seen = []

    def keep(*_: Any) -> None:
        learning = [*training.network.parameters(), *training.objective.parameters()]
        gradients = [p.grad.flatten() for p in learning if p.grad is not None]
        assert len(gradients) == len(learning)
        seen.append(torch.cat(gradients).norm().item())

    training.optimizer.register_step_pre_hook(keep)
    run(training, data, unlabelled=batches_of(data.part(TRAIN, TRAIN + 18), train=True))
    assert seen == pytest.approx([1e-3] * 8, rel=1e-3)


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_two_batches_of_8_are_one_of_16_without_normalisation(optimizer: str) -> None:
    one = begun(norm=False, optimizer=optimizer)
    two = begun(norm=False, optimizer=optimizer, accumulate=2)
    train_epoch(one, noise_steps(16, 16), Hooks())
    logits, targets = train_epoch(two, noise_steps(8, 8, 8, 8), Hooks())
    assert logits.shape == targets.shape == (32,)
    torch.testing.assert_close(weights_of(one), weights_of(two), rtol=1e-5, atol=1e-6)
    before = weights_of(begun(norm=False))
    assert (weights_of(two)["last.weight"] - before["last.weight"]).abs().max() > 1e-3


def test_two_batches_are_one_through_a_whole_training(data: Data) -> None:
    """48 training images, of which the same 16 form a batch and two halves of one."""
    trainings = []
    for size, accumulate in ((16, 1), (8, 2)):
        training = begun(norm=False, epochs=2, accumulate=accumulate)
        batches = TrainingData(batches_of(data.part(0, 48), train=True, size=size))
        fit(training, batches, Hooks())
        trainings.append(training)
    one, two = trainings
    torch.testing.assert_close(weights_of(one), weights_of(two), rtol=1e-4, atol=1e-5)
    for name in ("train/loss", "train/auc", "lr"):
        assert [r[name] for r in two.progress.history] == pytest.approx(
            [r[name] for r in one.progress.history], rel=1e-4
        )


def test_the_last_group_steps_even_if_it_is_incomplete() -> None:
    """Two groups of three batches and one of two, and then a group of one."""
    training = begun(accumulate=3)
    seen = gradients_of(training, noise_steps(4, 4, 4, 4, 4, 4, 4, 4))
    assert len(seen) == 3
    assert len(gradients_of(begun(accumulate=9), noise_steps(4))) == 1
    again = gradients_of(begun(accumulate=3), noise_steps(4, 4, 4, 4, 4, 4))
    assert len(again) == 2
    for first, second in zip(seen, again, strict=False):
        assert all(torch.equal(first[name], second[name]) for name in first)


def test_no_gradient_is_carried_over_into_the_next_epoch() -> None:
    """An incomplete group of one epoch does not fill up with batches of the next."""
    training = begun(accumulate=3, optimizer="sgd", lr=1e-9)  # the weights stay as they are
    first = gradients_of(training, noise_steps(4))
    again = gradients_of(training, noise_steps(4))[-1]
    for name, gradient in first[0].items():
        torch.testing.assert_close(again[name], gradient, rtol=1e-4, atol=1e-7)


# --- precision


def one_step(precision: str) -> tuple[dict[str, Tensor], npt.NDArray[np.float64]]:
    """The change of each weight by one step of gradient descent, and the logits."""
    torch.manual_seed(0)
    network = Tiny()
    before = {name: p.detach().clone() for name, p in network.named_parameters()}
    training = start_training(network, Device("cpu", precision, 0), options_of())
    training.optimizer = torch.optim.SGD(network.parameters(), lr=1.0)
    images = torch.randint(0, 256, (16, 3, 32, 32), generator=torch.Generator().manual_seed(0))
    targets = torch.arange(16) % 2
    step = Step(images.float(), targets.float())
    logits, seen = train_epoch(training, [step], Hooks())
    assert seen.tolist() == targets.tolist()
    return {name: p.detach() - before[name] for name, p in network.named_parameters()}, logits


def test_a_step_in_bf16_is_close_to_one_in_fp32_and_not_the_same() -> None:
    (exact, exact_logits), (rough, rough_logits) = one_step("fp32"), one_step("bf16")
    assert not np.array_equal(exact_logits, rough_logits)
    assert rough_logits == pytest.approx(exact_logits, abs=0.01)
    for name in ("last.weight", "last.bias", "norm.weight", "norm.bias"):
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


class Asking(Tiny):
    """A network that notes whether TF32 is allowed, by pass: forward, backward or evaluation."""

    def __init__(self) -> None:
        super().__init__()
        self.allowed: dict[str, set[tuple[bool, bool]]] = {}

    def note(self, when: str) -> None:
        flags = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
        self.allowed.setdefault(when, set()).add(flags)

    def outputs(self, images: Tensor) -> Tensor:
        logits = super().outputs(images)
        self.note("forward" if self.training else "evaluation")
        if logits.requires_grad:
            logits.register_hook(lambda gradient: self.note("backward"))
        return logits


@pytest.mark.parametrize("precision", ["fp32", "tf32", "bf16"])
def test_only_training_steps_in_tf32_use_tf32(data: Data, precision: str) -> None:
    network = Asking()
    run(start_training(network, Device("cpu", precision, 0), options_of(epochs=1)), data)
    step = {(precision == "tf32",) * 2}
    assert network.allowed == {"forward": step, "backward": step, "evaluation": {(False, False)}}


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
    training = start(4, lr=0.1, weight_decay=0.05)
    (group,) = training.optimizer.param_groups
    assert isinstance(training.optimizer, torch.optim.AdamW)
    assert (group["lr"], group["weight_decay"], group["betas"]) == (0.1, 0.05, (0.9, 0.999))
    rates = []
    for _ in range(4):
        rates.append(group["lr"])
        training.optimizer.step()
        training.schedule.step()
    assert [*rates, group["lr"]] == pytest.approx([0.1, 0.0853553, 0.05, 0.0146447, 0.0], abs=1e-7)
    assert training.progress == Progress()
    weight = training.network.get_parameter("convolution.weight")
    assert weight.is_contiguous(memory_format=torch.channels_last)

"""The training loop: epochs of steps, a validation after each, and when to stop."""

import math
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import chain, count, repeat

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.amp.grad_scaler import GradScaler

from synthdetect.config import AugmentOptions, TrainOptions
from synthdetect.evaluation.metrics import epoch_metrics
from synthdetect.images.augmentation import augment, draws
from synthdetect.images.batches import Batch, Batches
from synthdetect.images.mixing import mix
from synthdetect.training.devices import Device
from synthdetect.training.objective import Objective, Step
from synthdetect.training.optimizers import OPTIMIZERS

EpochMetrics = dict[str, float]
"""What one epoch was like: metric names and values."""

OnBatch = Callable[[int, float], None]
"""Called after each batch with (images in it, running loss; nan while evaluating)."""


class Diverged(RuntimeError):
    """The loss, or what the network says, is not a finite number any more."""


@dataclass(frozen=True)
class Progress:
    """How far a training has come: all that early stopping and resuming need.

    Attributes:
        epoch: epochs done.
        best_epoch: the one with the best validation AUC (0: none yet), counted from 1.
        best_auc: that AUC.
        history: the record of every epoch done.
    """

    epoch: int = 0
    best_epoch: int = 0
    best_auc: float = -math.inf
    history: list[EpochMetrics] = field(default_factory=list)

    def after(self, record: EpochMetrics) -> "Progress":
        """The progress once an epoch with this record is done.

        Ties keep the earlier epoch. Without validation there is nothing to choose by, and the last
        epoch stands.
        """
        epoch, auc = self.epoch + 1, record.get("val/auc", self.best_auc)
        better = auc > self.best_auc or "val/auc" not in record
        best = (epoch, auc) if better else (self.best_epoch, self.best_auc)
        return Progress(epoch, *best, [*self.history, record])

    @property
    def improved(self) -> bool:
        """Whether the last epoch was the best so far."""
        return self.epoch == self.best_epoch

    def finished(self, epochs: int, patience: int) -> bool:
        """Whether all epochs are done, or `patience` of them brought nothing better."""
        stale = self.epoch - self.best_epoch
        return self.epoch >= epochs or (patience > 0 and stale >= patience)


@dataclass
class TrainingState:
    """Everything that changes while training; `synthdetect.training.checkpoint` saves all of it."""

    network: nn.Module
    objective: Objective
    optimizer: torch.optim.Optimizer
    schedule: torch.optim.lr_scheduler.LRScheduler
    scaler: GradScaler
    progress: Progress = field(default_factory=Progress)


def start_training(network: nn.Module, device: Device, options: TrainOptions) -> TrainingState:
    """What the options ask for (as in the paper: AdamW), and cosine annealing over the epochs."""
    network.to(device.torch).to(memory_format=torch.channels_last)
    objective = Objective(options, device, network).to(device.torch)
    parameters = [*network.parameters(), *objective.parameters()]
    optimizer = OPTIMIZERS[options.optimizer].make(parameters, options, device.kind != "mps")
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=options.epochs)
    return TrainingState(network, objective, optimizer, schedule, device.scaler())


def fit(
    training: TrainingState,
    train: Batches,
    val: Batches | None,
    labels: Tensor,
    val_labels: npt.NDArray[np.int8],
    device: Device,
    augmentation: AugmentOptions,
    *,
    unlabelled: Batches | None = None,
    epochs: int,
    patience: int,
    seed: int,
    on_batch: OnBatch,
    on_epoch: Callable[[TrainingState], None],
) -> None:
    """Train until all epochs are done or validation AUC has not risen for `patience` of them.

    Args:
        training: where to start from; changed in place.
        train: training images.
        val: validation images, which choose the best epoch; None trains all epochs.
        labels: of the training images by row, float, shape (rows,).
        val_labels: of the validation images by row.
        device: what computes.
        augmentation: random changes of training images.
        unlabelled: images to adapt to.
        epochs: the most epochs.
        patience: epochs without improvement to stop after; 0 never stops early.
        seed: of augmentation and of everything random inside the network.
        on_batch: told of every batch.
        on_epoch: called when an epoch is complete, its record last in the history.

    Raises:
        Diverged: the loss became infinite or undefined.
    """
    while not training.progress.finished(epochs, patience):
        epoch = training.progress.epoch + 1
        lr = training.optimizer.param_groups[0]["lr"]
        torch.manual_seed(_epoch_seed(seed, epoch))  # dropout and the like
        began = time.perf_counter()
        steps = prepared(train, epoch, labels, device, augmentation, seed, unlabelled)
        logits, targets = train_epoch(training, steps, on_batch)
        seconds = time.perf_counter() - began
        training.schedule.step()
        record = epoch_metrics("train", targets, logits)
        if val is not None:
            batches_of_val = val.strict_epoch(0)
            scores = predict(training.network, batches_of_val, device, len(val_labels), on_batch)
            if not np.isfinite(scores).all():
                raise Diverged(
                    f"the network's answers are no numbers after epoch {epoch}. "
                    "Lower --lr, or train in --precision fp32."
                )
            record |= epoch_metrics("val", val_labels, scores)
        record |= {"lr": lr, "images_per_second": len(targets) / seconds}
        training.progress = training.progress.after(record)
        on_epoch(training)


def prepared(
    train: Batches,
    epoch: int,
    labels: Tensor,
    device: Device,
    augmentation: AugmentOptions,
    seed: int,
    unlabelled: Batches | None = None,
) -> Iterator[Step]:
    """The steps of one epoch: images augmented and mixed, their targets, and unlabelled images.

    However many unlabelled images there are, each step gets a batch of them: they are gone through
    again and again, each time in another order and changed otherwise.
    """
    others: Iterator[Tensor | None] = repeat(None)
    if unlabelled is not None:
        rounds = math.ceil(len(train) / len(unlabelled))  # that an epoch begins, each by its number
        numbers = count((epoch - 1) * rounds + 1)
        passes = (_changed(unlabelled, n, device, augmentation, seed) for n in numbers)
        others = (_channels_last(images) for _, images in chain.from_iterable(passes))
    changed = _changed(train, epoch, device, augmentation, seed)
    for number, (rows, images) in enumerate(changed):
        targets = labels[rows].to(device.torch, non_blocking=True)
        images, targets = mix(images, targets, augmentation, (seed, epoch, number))
        done = epoch - 1 + number / len(train)
        yield Step(_channels_last(images), targets, done, next(others))


def _changed(
    batches: Batches, number: int, device: Device, augmentation: AugmentOptions, seed: int
) -> Iterator[tuple[Tensor, Tensor]]:
    """Rows and augmented images of one pass."""
    for batch in batches.strict_epoch(number):
        random = draws(seed, number, batch.rows.tolist())
        images = batch.images.to(device.torch, non_blocking=True)
        yield batch.rows, augment(images, augmentation, random)


def _channels_last(images: Tensor) -> Tensor:
    return images.contiguous(memory_format=torch.channels_last)


def train_epoch(
    training: TrainingState, steps: Iterable[Step], on_batch: OnBatch
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Train on the steps of one epoch.

    Returns:
        Logits and targets of all labelled images as trained on, in the order seen, each of shape
        (images,).

    Raises:
        Diverged: the loss became infinite or undefined.
    """
    network, optimizer, scaler = training.network, training.optimizer, training.scaler
    network.train()
    all_logits: list[Tensor] = []
    all_targets: list[Tensor] = []
    total, seen = 0.0, 0
    for step in steps:
        optimizer.zero_grad(set_to_none=True)
        loss, logits = training.objective(network, step)
        value = loss.item()
        if not math.isfinite(value):
            raise Diverged(
                f"the loss is {value} in epoch {training.progress.epoch + 1}, step "
                f"{len(all_logits) + 1}. Lower --lr, or train in --precision fp32."
            )
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        all_logits.append(logits.detach().float().cpu())
        all_targets.append(step.targets.cpu())
        total, seen = total + value * len(step.images), seen + len(step.images)
        on_batch(len(step.images), total / seen)
    return torch.cat(all_logits).double().numpy(), torch.cat(all_targets).double().numpy()


def predict(
    network: nn.Module,
    batches: Iterable[Batch],
    device: Device,
    rows: int,
    on_batch: OnBatch = lambda images, loss: None,
) -> npt.NDArray[np.float64]:
    """Logits of images, in fp32 whatever training used: the same numbers everywhere.

    Returns:
        Shape (rows,); nan for rows that no batch held.
    """
    network.eval()
    result = np.full(rows, np.nan)
    with torch.inference_mode():
        for batch in batches:
            if len(batch.rows):
                images = batch.images.to(device.torch, non_blocking=True)
                result[batch.rows.numpy()] = network(images).cpu().double().numpy()
            on_batch(len(batch.rows) + len(batch.unreadable), math.nan)
    return result


def _epoch_seed(seed: int, epoch: int) -> int:
    return int(np.random.SeedSequence([seed, epoch]).generate_state(1, np.uint64)[0] >> 1)

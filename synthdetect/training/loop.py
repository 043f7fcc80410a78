"""The training loop: epochs of steps, a validation after each, and early stopping."""

import math
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import chain, count, repeat

import numpy as np
import torch
from torch import Tensor, nn
from torch.amp.grad_scaler import GradScaler

from synthdetect.evaluation.metrics import epoch_metrics
from synthdetect.images.augmentation import augment, draws
from synthdetect.images.batches import Batch, Batches
from synthdetect.images.mixing import mix
from synthdetect.models.networks import Network
from synthdetect.system.arrays import FloatArray
from synthdetect.training.devices import Device
from synthdetect.training.objective import Objective, Step
from synthdetect.training.optimizers import make_optimizer
from synthdetect.training.options import TrainingOptions
from synthdetect.training.schedules import make_schedule

EpochMetrics = dict[str, float]
"""The metrics of one epoch, by name."""

OnBatch = Callable[[int, float], None]
"""Called after each batch with its number of images and the mean loss of the epoch so far."""

_READ_EVERY = 20
"""Steps between two readings of the loss on an accelerator, since each waits for the device."""


class Diverged(RuntimeError):
    """The loss or the logits are not finite numbers any more."""


@dataclass(frozen=True)
class Progress:
    """How far a training has come: all that early stopping and resuming need.

    Attributes:
        epoch: Epochs done.
        best_epoch: The epoch with the best validation AUC, counted from 1 (0: none yet).
        best_auc: That AUC.
        history: The metrics of every epoch done.
    """

    epoch: int = 0
    best_epoch: int = 0
    best_auc: float = -math.inf
    history: list[EpochMetrics] = field(default_factory=list)

    def after(self, metrics: EpochMetrics) -> "Progress":
        """Return the progress after one more epoch.

        Ties keep the earlier epoch. Without validation the last epoch counts as the best.
        """
        epoch, auc = self.epoch + 1, metrics.get("val/auc", self.best_auc)
        better = auc > self.best_auc or "val/auc" not in metrics
        best = (epoch, auc) if better else (self.best_epoch, self.best_auc)
        return Progress(epoch, *best, [*self.history, metrics])

    @property
    def improved(self) -> bool:
        """Whether the last epoch is the best so far."""
        return self.epoch == self.best_epoch

    def finished(self, epochs: int, patience: int) -> bool:
        """Return whether all epochs are done, or `patience` of them without improvement."""
        stale = self.epoch - self.best_epoch
        return self.epoch >= epochs or (patience > 0 and stale >= patience)


@dataclass
class TrainingState:
    """Everything that a training consists of; `checkpoint` saves what changes.

    Attributes:
        options: The options of the training.
        device: The device that trains.
    """

    options: TrainingOptions
    device: Device
    network: Network
    objective: Objective
    optimizer: torch.optim.Optimizer
    schedule: torch.optim.lr_scheduler.LRScheduler
    scaler: GradScaler
    progress: Progress = field(default_factory=Progress)


@dataclass(frozen=True)
class TrainingData:
    """Batches that a training reads.

    Attributes:
        train: Labelled training images.
        val: Labelled validation images, which choose the best epoch; None trains all epochs.
        unlabelled: Images to adapt to.
    """

    train: Batches
    val: Batches | None = None
    unlabelled: Batches | None = None


class Hooks:
    """What a caller does while a training runs; each method does nothing by default."""

    def on_batch(self, images: int, loss: float) -> None:
        """Called after each batch.

        Args:
            images: Number of images in the batch.
            loss: Mean loss of the epoch so far; nan in validation, and where it is not read yet.
        """

    def on_epoch(self, training: TrainingState) -> None:
        """Called after each epoch, when its metrics are the last in the history."""


def start_training(network: Network, device: Device, options: TrainingOptions) -> TrainingState:
    """Put a network on the device and make everything that its training needs."""
    network.to(device.torch).to(memory_format=torch.channels_last)
    objective = Objective(options, device, network).to(device.torch)
    fused = device.kind != "mps"
    optimizer = make_optimizer([network, objective], options.optim, fused=fused)
    schedule = make_schedule(optimizer, options.optim)
    return TrainingState(options, device, network, objective, optimizer, schedule, device.scaler())


def fit(
    training: TrainingState, data: TrainingData, hooks: Hooks, *, epochs: int | None = None
) -> None:
    """Train until all epochs are done or the validation AUC stops improving.

    Args:
        training: The state to start from; it is changed in place.
        data: The batches to train and validate on.
        hooks: Called for every batch and epoch.
        epochs: Epochs after which to stop; None means those of the options, which also give the
            length of the learning-rate schedule.

    Raises:
        Diverged: If the loss or the validation logits become infinite or undefined.
    """
    optim, device = training.options.optim, training.device
    epochs = optim.epochs if epochs is None else epochs
    patience = optim.patience if data.val else 0
    while not training.progress.finished(epochs, patience):
        epoch = training.progress.epoch + 1
        lr = training.optimizer.param_groups[0]["lr"]
        torch.manual_seed(_epoch_seed(optim.seed, epoch))  # dropout and the like
        began = time.perf_counter()
        logits, targets = train_epoch(training, steps_of(training, data, epoch), hooks)
        seconds = time.perf_counter() - began
        training.schedule.step()
        metrics = epoch_metrics("train", targets, logits)
        if data.val:
            batches = data.val.strict_epoch(0)
            scores = predict(training.network, batches, device, data.val.images, hooks.on_batch)
            if not np.isfinite(scores).all():
                raise Diverged(
                    f"the logits of the validation images are not finite after epoch {epoch}. "
                    "Lower --lr, or train in --precision fp32."
                )
            metrics |= epoch_metrics("val", data.val.targets, scores)
        metrics |= {"lr": lr, "images_per_second": len(targets) / seconds}
        training.progress = training.progress.after(metrics)
        hooks.on_epoch(training)


def steps_of(training: TrainingState, data: TrainingData, epoch: int) -> Iterator[Step]:
    """Yield the steps of an epoch: augmented and mixed images, their targets, unlabelled images.

    Every step has a batch of the unlabelled images, which are passed over repeatedly, each time in
    another order and with other random changes.
    """
    options, train = training.options, data.train
    seed, device = options.optim.seed, training.device
    unlabelled: Iterator[Tensor | None] = repeat(None)
    if data.unlabelled is not None:
        rounds = math.ceil(len(train) / len(data.unlabelled))  # passes that an epoch begins
        numbers = count((epoch - 1) * rounds + 1)
        passes = (_augmented(training, data.unlabelled, number) for number in numbers)
        unlabelled = (_channels_last(images) for images, _ in chain.from_iterable(passes))
    for number, (images, targets) in enumerate(_augmented(training, train, epoch)):
        targets = targets.to(device.torch, non_blocking=True)
        images, targets = mix(images, targets, options.augment, (seed, epoch, number))
        done = epoch - 1 + number / len(train)
        yield Step(_channels_last(images), targets, done, next(unlabelled))


def _augmented(
    training: TrainingState, batches: Batches, number: int
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield the augmented images, on the device, and the targets of one pass over the batches."""
    options = training.options
    for batch in batches.strict_epoch(number):
        random = draws(options.optim.seed, number, batch.rows.tolist())
        images = batch.images.to(training.device.torch, non_blocking=True)
        yield augment(images, options.augment, random), batch.targets


def _channels_last(images: Tensor) -> Tensor:
    return images.contiguous(memory_format=torch.channels_last)


def train_epoch(
    training: TrainingState, steps: Iterable[Step], hooks: Hooks
) -> tuple[FloatArray, FloatArray]:
    """Train on the steps of one epoch.

    Returns:
        The logits and targets of all labelled images as they were trained on, in the order in which
        they were seen, each of shape (images,).

    Raises:
        Diverged: If the loss becomes infinite or undefined.
    """
    accumulate = training.options.optim.accumulate
    training.network.train()
    losses = _Losses(training)
    all_logits: list[Tensor] = []
    all_targets: list[Tensor] = []
    pending = 0  # batches whose gradients wait for an optimizer step
    for step in steps:
        if not pending:
            training.optimizer.zero_grad(set_to_none=True)
        loss, logits = training.objective(training.network, step)
        losses.add(loss.detach(), len(step.images))
        training.scaler.scale(loss if accumulate == 1 else loss / accumulate).backward()
        pending += 1
        if pending == accumulate:
            _update(training)
            pending = 0
        all_logits.append(logits.detach().float())
        all_targets.append(step.targets)
        hooks.on_batch(len(step.images), losses.mean)
    if pending:
        _update(training)
    losses.read()
    logits, targets = torch.cat(all_logits), torch.cat(all_targets)
    return logits.cpu().double().numpy(), targets.cpu().double().numpy()


def _update(training: TrainingState) -> None:
    """Do one optimizer step with the accumulated gradients."""
    optimizer, scaler = training.optimizer, training.scaler
    clip_norm = training.options.optim.clip_norm
    if clip_norm:
        scaler.unscale_(optimizer)
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        nn.utils.clip_grad_norm_(parameters, clip_norm)
    scaler.step(optimizer)
    scaler.update()


class _Losses:
    """The losses of an epoch, read from the device only now and then.

    Attributes:
        mean: Mean over the images of the epoch as far as it has been read; nan before that.
    """

    def __init__(self, training: TrainingState) -> None:
        self._epoch = training.progress.epoch + 1
        self._every = 1 if training.device.kind == "cpu" else _READ_EVERY
        self._unread: list[tuple[Tensor, int]] = []
        self._total, self._images, self._steps = 0.0, 0, 0
        self.mean = math.nan

    def add(self, loss: Tensor, images: int) -> None:
        """Add the loss of one step.

        Raises:
            Diverged: If a loss that is read now is infinite or undefined.
        """
        self._unread.append((loss, images))
        if len(self._unread) >= self._every:
            self.read()

    def read(self) -> None:
        """Read the losses that have been added since the last time.

        Raises:
            Diverged: If one is infinite or undefined; the message names its step.
        """
        if not self._unread:
            return
        values = torch.stack([loss for loss, _ in self._unread]).tolist()
        for value, (_, images) in zip(values, self._unread, strict=True):
            self._steps += 1
            if not math.isfinite(value):
                raise Diverged(
                    f"the loss is {value} in epoch {self._epoch}, step {self._steps}. Lower --lr, "
                    "or train in --precision fp32."
                )
            self._total, self._images = self._total + value * images, self._images + images
        self._unread.clear()
        self.mean = self._total / self._images


def predict(
    network: nn.Module,
    batches: Iterable[Batch],
    device: Device,
    rows: int,
    on_batch: OnBatch | None = None,
) -> FloatArray:
    """Compute the logits of images in fp32, whatever precision trained the network.

    Args:
        network: The network, on the device.
        batches: The images.
        device: The device that computes.
        rows: Number of rows of the result.
        on_batch: Called after each batch with its number of images and nan.

    Returns:
        The logits by row, of shape (rows,); nan for rows that no batch held.
    """
    network.eval()
    result = np.full(rows, np.nan)
    with torch.inference_mode():
        for batch in batches:
            if len(batch.rows):
                images = batch.images.to(device.torch, non_blocking=True)
                result[batch.rows.numpy()] = network(images).cpu().double().numpy()
            if on_batch:
                on_batch(len(batch.rows) + len(batch.unreadable), math.nan)
    return result


def _epoch_seed(seed: int, epoch: int) -> int:
    return int(np.random.SeedSequence([seed, epoch]).generate_state(1, np.uint64)[0] >> 1)

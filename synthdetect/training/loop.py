"""The training loop: epochs of steps, a validation after each, and early stopping."""

import math
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import chain, count, islice, repeat

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.amp.grad_scaler import GradScaler

from synthdetect.evaluation.metrics import epoch_metrics
from synthdetect.images.augmentation import augment, draws
from synthdetect.images.batches import Batch, EpochBatches, Part
from synthdetect.images.mixing import mix
from synthdetect.images.options import AugmentationOptions
from synthdetect.models.networks import Network
from synthdetect.system.arrays import FloatArray
from synthdetect.training.averaging import WeightAverage
from synthdetect.training.devices import Device, tf32
from synthdetect.training.distributed import Group, Learning, alone, learning_in
from synthdetect.training.evaluated import evaluated_network
from synthdetect.training.objective import Objective, Step
from synthdetect.training.optimizers import make_optimizer, slow_weights
from synthdetect.training.options import TrainingOptions
from synthdetect.training.schedules import make_schedule
from synthdetect.training.semi_supervised import (
    PRECISION,
    pseudo_label_precision,
    reference_seed,
)

EpochMetrics = dict[str, float]
"""The metrics of one epoch, by name."""

OnBatch = Callable[[int, float], None]
"""Called after each batch with its number of images and the mean loss of the epoch so far."""

_PART_DRAWS = 2  # sets the seeds of parts apart from those of images and batches

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
        network: The network that learns.
        average: The average of its weights, if the options ask for one; the mean teacher is one.
        evaluated: The network that is validated and kept, as the last epoch made it: `network`
            itself, or a copy with other weights or statistics (see `network_to_evaluate`).
        group: The processes that train together.
        learning: How they learn from a batch.
    """

    options: TrainingOptions
    device: Device
    network: Network
    objective: Objective
    optimizer: torch.optim.Optimizer
    schedule: torch.optim.lr_scheduler.LRScheduler
    scaler: GradScaler
    average: WeightAverage
    evaluated: Network
    group: Group
    learning: Learning
    progress: Progress = field(default_factory=Progress)

    @property
    def teacher(self) -> Network | None:
        """The mean teacher; None if the options ask for none, and before the first step."""
        mean = self.options.semi_supervised.semi_supervised == "mean_teacher"
        return self.average.network if mean else None


@dataclass(frozen=True)
class TrainingData:
    """Batches that a training reads.

    Attributes:
        train: Labelled training images.
        val: Labelled validation images, which choose the best epoch; None trains all epochs.
        unlabelled: Images to adapt to or to learn from.
        reference: The same images in the same order, with the random changes of the version that a
            teacher sees.
        generators: The number of each training image's generator by row, of shape (images,), as
            `attribution.generator_numbers` gives it; None if the network does not attribute images.
    """

    train: EpochBatches
    val: EpochBatches | None = None
    unlabelled: EpochBatches | None = None
    reference: EpochBatches | None = None
    generators: npt.NDArray[np.int64] | None = None


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


def start_training(
    network: Network, device: Device, options: TrainingOptions, group: Group | None = None
) -> TrainingState:
    """Put a network on the device and make everything that its training needs.

    Of a network with a probe, the probe alone learns.

    Args:
        network: The network to train.
        device: The device that trains.
        options: The options of the training.
        group: The processes that train together; None means this one alone.
    """
    group = group or alone(options.optim.parts)
    network.to(device.torch).to(memory_format=torch.channels_last)
    objective = Objective(options, device, network).to(device.torch)
    fused = device.kind != "mps"
    learns = network.head if network.spec.frozen else network
    optimizer = make_optimizer([learns, objective], options.optim, fused=fused)
    schedule = make_schedule(optimizer, options.optim)
    scaler = device.scaler()
    teaches = options.semi_supervised.semi_supervised == "mean_teacher"
    average = WeightAverage(network, options.optim, teaches=teaches)
    return TrainingState(
        options,
        device,
        network,
        objective,
        optimizer,
        schedule,
        scaler,
        average,
        evaluated=network,
        group=group,
        learning=learning_in(group, network, optimizer),
    )


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
    optim, device, group = training.options.optim, training.device, training.group
    epochs = optim.epochs if epochs is None else epochs
    # Not `if data.val`: this process may have none of its batches.
    patience = optim.patience if data.val is not None else 0
    group.require_same(training.network, training.progress.epoch)
    while not training.progress.finished(epochs, patience):
        epoch = training.progress.epoch + 1
        lr = training.optimizer.param_groups[0]["lr"]
        torch.manual_seed(_epoch_seed(optim.seed, epoch))  # dropout and the like
        began, waited = time.perf_counter(), group.waited
        with tf32(allowed=device.precision == "tf32"):
            logits, targets = train_epoch(training, steps_of(training, data, epoch), hooks)
        training.average.after_epoch(training.network, epoch)
        training.evaluated = network_to_evaluate(training, data, epoch)
        seconds, waited = time.perf_counter() - began, group.waited - waited
        training.schedule.step()
        metrics = epoch_metrics("train", targets, logits)
        if data.val is not None:
            scores = predict_together(group, training.evaluated, data.val, device, hooks.on_batch)
            if not np.isfinite(scores).all():
                raise Diverged(
                    f"the logits of the validation images are not finite after epoch {epoch}. "
                    "Lower --lr, or train in --precision fp32."
                )
            metrics |= epoch_metrics("val", data.val.targets, scores)
        semi_supervised = training.objective.semi_supervised
        if semi_supervised is not None:
            known = (
                ("val", data.val.targets, scores)
                if data.val is not None
                else ("train", targets, logits)
            )
            split, labels, answers = known
            precision = pseudo_label_precision(labels, answers, semi_supervised.confidence)
            metrics |= semi_supervised.pop_metrics() | {f"{split}/{PRECISION}": precision}
        metrics |= {"lr": lr, "images_per_second": len(targets) / seconds}
        metrics |= group.throughputs(len(targets), seconds - waited)
        training.progress = training.progress.after(metrics)
        group.require_same(training.network, epoch)
        hooks.on_epoch(training)


def steps_of(training: TrainingState, data: TrainingData, epoch: int) -> Iterator[Step]:
    """Yield the steps of an epoch: augmented and mixed images, their targets, unlabelled images.

    If an adaptation adds a loss, every step has a batch of the unlabelled images, which are passed
    over repeatedly, each time in another order and with other random changes. Under a
    semi-supervised method it has the teacher's version of them too, unless the guard keeps both out
    of the epoch.
    """
    options, train = training.options, data.train
    seed, device, augmentation = options.optim.seed, training.device, options.augment
    unlabelled: Iterator[Tensor | None] = repeat(None)
    reference: Iterator[Tensor | None] = repeat(None)

    def passes(batches: EpochBatches, changes: AugmentationOptions, seed: int) -> Iterator[Tensor]:
        rounds = math.ceil(len(train) / len(batches))  # passes that an epoch begins
        numbers = count((epoch - 1) * rounds + 1)
        rounds_of = (_augmented(training, batches, number, changes, seed) for number in numbers)
        return (_channels_last(images) for images, _ in chain.from_iterable(rounds_of))

    semi_supervised = training.objective.semi_supervised
    if data.unlabelled is not None and training.objective.adaptation is not None:
        unlabelled = passes(data.unlabelled, augmentation, seed)
    elif semi_supervised is not None and semi_supervised.trusted(training.progress.history):
        assert data.unlabelled is not None
        assert data.reference is not None
        weak, _ = semi_supervised.reference_changes(augmentation, options.launder)
        unlabelled = passes(data.unlabelled, semi_supervised.changes(augmentation), seed)
        reference = passes(data.reference, weak, reference_seed(seed))
    augmented = _augmented(training, train, epoch, augmentation, seed)
    parts = len(train) * training.group.division.processes
    for index, (images, batch) in enumerate(augmented):
        part = train.part(index)
        targets = batch.targets.to(device.torch, non_blocking=True)
        images, targets = mix(images, targets, augmentation, (seed, epoch, part.number))
        generators = None
        if data.generators is not None:
            own = data.generators[batch.rows.numpy() % train.images]
            generators = torch.from_numpy(own).to(device.torch, non_blocking=True)
        yield Step(
            _channels_last(images),
            targets,
            epochs=epoch - 1 + part.number / parts,
            unlabelled=next(unlabelled),
            reference=next(reference),
            generators=generators,
            part=part,
            seed=_part_seed(seed, epoch, part.number) if training.group.division.parts > 1 else 0,
        )


def network_to_evaluate(training: TrainingState, data: TrainingData, epoch: int) -> Network:
    """Return the network that an epoch is judged by: the one that learns, or one made from it.

    If the optimizer has slow weights (Lookahead, Ranger) or weights are averaged, it has these, and
    statistics of batch normalisation that are estimated anew from the training images, augmented
    as in training. An exponential moving average has statistics of its own. Under AdaBN the
    statistics are those of the unlabelled images, without augmentation.

    Args:
        training: The state at the end of the epoch, which stays as it is.
        data: The batches to take statistics from.
        epoch: The number of the epoch, from 1; it chooses the images.
    """
    seed = training.options.optim.seed
    averages = slow_weights(training.optimizer) or training.average.weights(training.network)
    if training.options.adaptation.adaptation == "adabn":
        assert data.unlabelled is not None
        images = (batch.images for batch in data.unlabelled.strict_epoch(epoch))
    elif averages and training.average.has_statistics:
        return training.average.network or training.network
    elif averages:
        augmented = _augmented(training, data.train, epoch, training.options.augment, seed)
        images = (images for images, _ in augmented)
    else:
        return training.network
    return evaluated_network(training.network, averages, images, training.device)


def _augmented(
    training: TrainingState,
    batches: EpochBatches,
    number: int,
    changes: AugmentationOptions,
    seed: int,
) -> Iterator[tuple[Tensor, Batch]]:
    """Yield the augmented images, on the device, and the batch, of one pass over the batches.

    Features are not augmented.
    """
    for batch in batches.strict_epoch(number):
        images = batch.images.to(training.device.torch, non_blocking=True)
        if images.ndim > 2:
            images = augment(images, changes, draws(seed, number, batch.rows.tolist()))
        yield images, batch


def _channels_last(images: Tensor) -> Tensor:
    return images.contiguous(memory_format=torch.channels_last) if images.ndim > 2 else images


def train_epoch(
    training: TrainingState, steps: Iterable[Step], hooks: Hooks
) -> tuple[FloatArray, FloatArray]:
    """Train on the steps of one epoch.

    Returns:
        The logits and targets of all labelled images as they were trained on, in the order in which
        one process would see them, each of shape (images,).

    Raises:
        Diverged: If the loss becomes infinite or undefined.
    """
    accumulate, group = training.options.optim.accumulate, training.group
    training.network.train()
    losses = _Losses(training)
    all_logits: list[Tensor] = []
    all_targets: list[Tensor] = []
    places: list[range] = []  # of the images in the epoch
    pending = 0  # batches whose gradients wait for an optimizer step

    def learn(step: Step, share: float) -> tuple[Tensor, Tensor]:
        loss, logits = training.objective(training.network, step, training.teacher)
        if loss.requires_grad:  # the probe knn has nothing to learn by steps
            divisor = accumulate / share
            training.scaler.scale(loss if divisor == 1 else loss / divisor).backward()
        return loss.detach(), logits.detach().float()

    rest = iter(steps)
    while batch := list(islice(rest, group.division.own)):
        if not pending:
            training.optimizer.zero_grad(set_to_none=True)
        loss, logits = training.learning(batch, learn)
        parts = [step.part or Part(0, 0, len(step.images)) for step in batch]
        images = parts[0].whole
        losses.add(loss, images)
        pending += 1
        if pending == accumulate:
            _update(training)
            pending = 0
        all_logits += logits
        all_targets += [step.targets for step in batch]
        places += [
            range(part.first, part.first + len(step.images))
            for part, step in zip(parts, batch, strict=True)
        ]
        hooks.on_batch(images, losses.mean)
    if pending:
        _update(training)
    losses.read()
    seen = torch.stack([torch.cat(all_logits), torch.cat(all_targets)], dim=1)
    whole = group.placed(seen.cpu().double().numpy(), np.fromiter(chain(*places), np.int64))
    return whole[:, 0], whole[:, 1]


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
    training.average.after_step(training.network)


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
    """Compute the logits of images in fp32 without TF32, whatever precision trained the network.

    Args:
        network: The network, on the device. It returns a logit, or several outputs, of each image.
        batches: The images.
        device: The device that computes.
        rows: Number of rows of the result.
        on_batch: Called after each batch with its number of images and nan.

    Returns:
        The logits by row, of shape (rows,), or several outputs, of shape (rows, outputs); nan for
        rows that no batch held.
    """
    network.eval()
    result: FloatArray | None = None
    with torch.inference_mode(), tf32(allowed=False):
        for batch in batches:
            if len(batch.rows):
                images = batch.images.to(device.torch, non_blocking=True)
                values = network(images).cpu().double().numpy()
                if result is None:
                    result = np.full((rows, *values.shape[1:]), np.nan)
                result[batch.rows.numpy()] = values
            if on_batch:
                on_batch(len(batch.rows) + len(batch.unreadable), math.nan)
    return np.full(rows, np.nan) if result is None else result


def predict_together(
    group: Group,
    network: nn.Module,
    batches: EpochBatches,
    device: Device,
    on_batch: OnBatch | None = None,
) -> FloatArray:
    """Compute the logits of all images as `predict` does; each process computes some batches.

    Returns:
        The logits by row, the same in all processes.
    """
    held = np.zeros(batches.images, dtype=bool)

    def noted() -> Iterator[Batch]:
        for batch in batches.strict_epoch(0):
            held[batch.rows.numpy()] = True
            yield batch

    own = predict(network, noted(), device, len(held), on_batch)
    whole = group.union(own, held)
    if on_batch and not held.all():
        on_batch(int((~held).sum()), math.nan)  # those of the other processes
    return whole


def _part_seed(seed: int, epoch: int, number: int) -> int:
    sequence = np.random.SeedSequence([seed, epoch, number], spawn_key=(_PART_DRAWS,))
    return int(sequence.generate_state(1, np.uint64)[0] >> 1)


def _epoch_seed(seed: int, epoch: int) -> int:
    return int(np.random.SeedSequence([seed, epoch]).generate_state(1, np.uint64)[0] >> 1)

"""Learning-rate schedules, stepped once an epoch; `SCHEDULES` in the options names them."""

from torch.optim import Optimizer
from torch.optim.lr_scheduler import (
    ConstantLR,
    CosineAnnealingLR,
    LinearLR,
    LRScheduler,
    SequentialLR,
)

from synthdetect.training.options import SCHEDULES, OptimOptions


def make_schedule(optimizer: Optimizer, options: OptimOptions) -> LRScheduler:
    """Make the schedule that the options name, after a linear warm-up if they ask for one.

    In epoch e of a warm-up of n epochs, counted from 1, the learning rate is e / (n + 1) of the
    initial one.
    """
    warmup = options.warmup_epochs
    schedule: LRScheduler = SCHEDULES[options.schedule].load()(optimizer, options.epochs - warmup)
    if not warmup:
        return schedule
    rise = LinearLR(optimizer, start_factor=1 / (warmup + 1), total_iters=warmup)
    return SequentialLR(optimizer, [rise, schedule], milestones=[warmup])


def cosine(optimizer: Optimizer, epochs: int) -> LRScheduler:
    return CosineAnnealingLR(optimizer, T_max=epochs)


def constant(optimizer: Optimizer, epochs: int) -> LRScheduler:
    return ConstantLR(optimizer, factor=1.0, total_iters=0)

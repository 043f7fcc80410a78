"""How weights are changed by gradients: a table of optimizers."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import nn
from torch.optim import Optimizer

from synthdetect.config import OptimOptions

Parameters = Iterable[nn.Parameter]


@dataclass(frozen=True)
class Entry:
    """One entry of the registry.

    Attributes:
        make: parameters, options and whether the device has fused steps, to an optimizer.
        help: one line.
    """

    make: Callable[[Parameters, OptimOptions, bool], Optimizer]
    help: str


def _adamw(parameters: Parameters, options: OptimOptions, fused: bool) -> Optimizer:
    return torch.optim.AdamW(
        parameters, lr=options.lr, weight_decay=options.weight_decay, fused=fused
    )


def _sgd(parameters: Parameters, options: OptimOptions, fused: bool) -> Optimizer:
    return torch.optim.SGD(
        parameters,
        lr=options.lr,
        momentum=options.momentum,
        weight_decay=options.weight_decay,
        # Without momentum there is nothing to look ahead along, and torch refuses the two together.
        nesterov=options.nesterov and options.momentum > 0,
        fused=fused,
    )


def _lookahead(parameters: Parameters, options: OptimOptions, fused: bool) -> Optimizer:
    """The paper's rule: the slow weights start where the fast ones do.

    Validation, the best epoch and the detector use the weights as they stand at an epoch's end: the
    fast ones, up to k - 1 steps after they were last set to the slow ones. Those are the weights
    whose running statistics the normalisation layers hold.
    """
    from pytorch_optimizer import Lookahead

    return Lookahead(
        _adamw(parameters, options, fused), k=options.lookahead_steps, alpha=options.lookahead_alpha
    )


def _ranger(parameters: Parameters, options: OptimOptions, fused: bool) -> Optimizer:
    from pytorch_optimizer import Ranger

    return Ranger(
        parameters,
        lr=options.lr,
        weight_decay=options.weight_decay,
        k=options.lookahead_steps,
        alpha=options.lookahead_alpha,
        # Otherwise the first five steps, too early for RAdam's rectification, go up the gradient.
        degenerated_to_sgd=True,
    )


OPTIMIZERS: dict[str, Entry] = {
    "adamw": Entry(_adamw, "AdamW (Loshchilov and Hutter 2019)"),
    "sgd": Entry(_sgd, "stochastic gradient descent with (Nesterov's) momentum"),
    "lookahead": Entry(_lookahead, "slow weights over AdamW's (Zhang et al. 2019)"),
    "ranger": Entry(_ranger, "RAdam, Lookahead and centralised gradients (Wright 2019)"),
}

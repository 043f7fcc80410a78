"""Optimizers; `synthdetect.training.options.OPTIMIZERS` names them."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from synthdetect.training.options import OPTIMIZERS, OptimOptions

Groups = list[dict[str, Any]]
"""Parameter groups, as the constructors of `torch.optim` accept them."""


def make_optimizer(
    modules: Iterable[nn.Module], options: OptimOptions, *, fused: bool
) -> Optimizer:
    """Make the optimizer that the options name.

    Args:
        modules: The modules whose parameters are trained.
        options: The optimizer and its parameters.
        fused: Whether the device has fused optimizer steps.
    """
    parameters = [parameter for module in modules for parameter in module.parameters()]
    optimizer: Optimizer = OPTIMIZERS[options.optimizer].load()(
        _groups(parameters, decay_norms=options.decay_norms), options, fused
    )
    return optimizer


def _groups(parameters: list[nn.Parameter], *, decay_norms: bool) -> Groups:
    """Return the parameters, with biases and normalisation weights in a group without decay."""
    if decay_norms:
        return [{"params": parameters}]
    return [
        {"params": [p for p in parameters if p.ndim > 1]},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]


def adamw(groups: Groups, options: OptimOptions, fused: bool) -> Optimizer:
    return torch.optim.AdamW(groups, lr=options.lr, weight_decay=options.weight_decay, fused=fused)


def sgd(groups: Groups, options: OptimOptions, fused: bool) -> Optimizer:
    return torch.optim.SGD(
        groups,
        lr=options.lr,
        momentum=options.momentum,
        weight_decay=options.weight_decay,
        nesterov=options.nesterov and options.momentum > 0,  # torch refuses it without momentum
        fused=fused,
    )


def lookahead(groups: Groups, options: OptimOptions, fused: bool) -> Optimizer:
    """Lookahead as published: the slow weights start where the fast ones do.

    The slow weights are those that are evaluated (see `slow_weights`).
    """
    from pytorch_optimizer import Lookahead

    return Lookahead(
        adamw(groups, options, fused), k=options.lookahead_steps, alpha=options.lookahead_alpha
    )


def ranger(groups: Groups, options: OptimOptions, fused: bool) -> Optimizer:
    from pytorch_optimizer import Ranger

    return Ranger(
        groups,
        lr=options.lr,
        weight_decay=options.weight_decay,
        k=options.lookahead_steps,
        alpha=options.lookahead_alpha,
        # Otherwise the first five steps, before RAdam's rectification, go up the gradient.
        degenerated_to_sgd=True,
    )


def slow_weights(optimizer: Optimizer) -> dict[Tensor, Tensor]:
    """Return the slow weights of Lookahead and Ranger by the parameter; empty for the others.

    A parameter that has had no gradient yet may be missing.
    """
    names = ("slow_params", "slow_buffer")  # of Lookahead, of Ranger
    return {
        parameter: state[name]
        for parameter, state in optimizer.state.items()
        for name in names
        if name in state
    }

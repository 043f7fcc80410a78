"""Averages of a network's weights over a training, which are evaluated in place of the last ones.

An exponential moving average (EMA) follows every step, and its normalisation statistics are
averaged like its weights. Stochastic weight averaging (SWA, Izmailov et al. 2018) takes the plain
mean of the weights at the ends of the last epochs, and its statistics are estimated anew (see
`synthdetect.training.evaluated`).
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from synthdetect.models.networks import Network
from synthdetect.training.options import OptimOptions


class WeightAverage:
    """The average of a network's weights, if the options ask for one.

    Args:
        network: The network that learns, on the device.
        options: Kind of the average, and its decay or its first epoch.
        teaches: Whether it is the teacher of a mean teacher: an exponential moving average that
            begins as the plain mean of all steps, so that it forgets the start (Tarvainen and
            Valpola 2017).
    """

    def __init__(self, network: Network, options: OptimOptions, *, teaches: bool = False) -> None:
        if teaches:
            options = replace(options, average="ema")
        self._options = options
        self._model: AveragedModel | None = None
        if options.average == "ema":
            update = _teaching if teaches else get_ema_multi_avg_fn
            self._model = AveragedModel(
                network, multi_avg_fn=update(options.ema_decay), use_buffers=True
            )
        elif options.average == "swa":
            self._model = AveragedModel(network)

    def after_step(self, network: Network) -> None:
        """Take a step of the optimizer into account."""
        if self._model is not None and self._options.average == "ema":
            self._model.update_parameters(network)

    def after_epoch(self, network: Network, epoch: int) -> None:
        """Take the end of an epoch, counted from 1, into account."""
        first = self._options.swa_from * self._options.epochs
        if self._model is not None and self._options.average == "swa" and epoch > first:
            self._model.update_parameters(network)

    @property
    def network(self) -> Network | None:
        """The averaged network; None if there is none yet."""
        if self._model is None or not int(self._model.n_averaged):
            return None
        module = self._model.module
        assert isinstance(module, Network)
        return module

    @property
    def has_statistics(self) -> bool:
        """Whether the statistics of the averaged network's normalisation fit its weights."""
        return self._options.average == "ema"

    def weights(self, network: Network) -> dict[Tensor, Tensor]:
        """Return the averaged weights by the parameter of the network that learns."""
        averaged = self.network
        if averaged is None:
            return {}
        return dict(zip(network.parameters(), averaged.parameters(), strict=True))

    def state_dict(self) -> dict[str, Any]:
        """Return the averaged weights and their number; nothing without an average."""
        return dict(self._model.state_dict()) if self._model is not None else {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Load what `state_dict` returned.

        Raises:
            RuntimeError: If it is the state of another network or average.
        """
        model = torch.nn.Module() if self._model is None else self._model
        model.load_state_dict(state)


def _teaching(decay: float) -> Callable[..., None]:
    """Return the update of an average of which a step keeps min(1 - 1 / (steps + 1), decay)."""

    def update(averages: list[Tensor], weights: list[Tensor], steps: Tensor) -> None:
        share = min(1 - 1 / (int(steps) + 1), decay)
        get_ema_multi_avg_fn(share)(averages, weights, steps)  # type: ignore[no-untyped-call]

    return update

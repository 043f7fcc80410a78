"""The network that is evaluated, where its weights or its statistics are not those that learn.

Validation, the best epoch and the detector use it. It is made from the whole state at the end of an
epoch and from images that the epoch determines, so a checkpoint need not hold it.
"""

import copy
from collections.abc import Iterable, Mapping
from itertools import islice

import torch
from torch import Tensor
from torch.optim.swa_utils import update_bn

from synthdetect.models.networks import Network
from synthdetect.training.devices import Device

STATISTICS_BATCHES = 50
"""Most batches from which statistics are estimated: 1,600 images by default, a few seconds."""


def evaluated_network(
    network: Network, averages: Mapping[Tensor, Tensor], images: Iterable[Tensor], device: Device
) -> Network:
    """Return a copy of a network with averaged weights and statistics that fit them.

    Args:
        network: The network that learns, on the device; it stays as it is.
        averages: The averaged weights by the parameter of `network`. A parameter that is missing
            keeps its value.
        images: Batches of images, of which the first `STATISTICS_BATCHES` give mean and variance to
            each layer with batch normalisation: the means over the batches, in fp32. They are not
            read if there is no such layer, or the backbone of a probe is frozen.
        device: The device that computes.
    """
    result = copy.deepcopy(network)
    with torch.no_grad():
        for own, learning in zip(result.parameters(), network.parameters(), strict=True):
            own.copy_(averages.get(learning, learning))
    if not network.spec.frozen:
        update_bn(islice(images, STATISTICS_BATCHES), result, device.torch)
    return result

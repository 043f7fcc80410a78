"""The features of images: what a frozen backbone makes of them, computed once per image.

Images are not augmented, and crops are at the centre, as in evaluation.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from synthdetect.datasets.manifest import Manifest
from synthdetect.images.batches import Batch, Batches, ImageFiles, Order, Part
from synthdetect.images.geometry import Preprocess
from synthdetect.models.networks import Network
from synthdetect.training.devices import Device, tf32
from synthdetect.training.feature_cache import FeatureCache

_BATCH = 32
_WRITE_EVERY = 64
"""Batches between two writes to the cache: 2,048 images."""


@dataclass(frozen=True)
class Features:
    """The features of images.

    Attributes:
        values: float32 of shape (images, features).
        computed: Number of images whose features were computed, and not found in the cache; images
            of the same content count once.
        seconds: How long that took.
    """

    values: Tensor
    computed: int
    seconds: float


def features_of(
    network: Network,
    manifest: Manifest,
    preprocess: Preprocess,
    device: Device,
    progress: Callable[[int, int], None] | None = None,
) -> Features:
    """Return the features of the images of a manifest, from the cache where it has them.

    They are computed in fp32, in batches of one size, so that neither the order of the images nor
    an interruption changes a bit of them.

    Args:
        network: The network, on the device; it is left in evaluation mode.
        manifest: The images, with their hashes.
        preprocess: Their preprocessing.
        device: The device that computes.
        progress: Called with the number of images done and their total, while features are
            computed.

    Raises:
        UserError: If an image cannot be read any more.
    """
    hashes = manifest.table["sha256"].tolist()
    cache = FeatureCache(network, preprocess, device.kind)
    found = cache.read(hashes)
    rows = {name: row for row, name in enumerate(hashes) if name not in found}
    missing = manifest.with_table(manifest.table.iloc[list(rows.values())])
    images = ImageFiles(missing.files(), preprocess)
    batches = Batches(
        images, Order(len(images), _BATCH), device.workers, pin_memory=device.pin_memory
    )
    began, names, pending = time.perf_counter(), list(rows), []
    done = written = 0
    for number, batch in enumerate(batches.strict_epoch(0) if rows else (), 1):
        pending.append(_computed(network, batch.images, device))
        done += len(batch.rows)
        if number % _WRITE_EVERY == 0 or done == len(names):
            part = torch.cat(pending)
            cache.write(names[written:done], part)
            found.update(zip(names[written:done], part, strict=True))
            written, pending = done, []
        if progress:
            progress(done, len(names))
    seconds = time.perf_counter() - began
    return Features(torch.stack([found[name] for name in hashes]), len(names), seconds)


def _computed(network: Network, images: Tensor, device: Device) -> Tensor:
    """Return the features of a batch that is filled up to one size with black images."""
    network.eval()
    filled = F.pad(images, (0, 0, 0, 0, 0, 0, 0, _BATCH - len(images)))
    with torch.inference_mode(), tf32(allowed=False):
        moved = filled.to(device.torch).contiguous(memory_format=torch.channels_last)
        _, features = network.with_features(moved)
    return features[: len(images)].float().cpu()


class FeatureBatches:
    """Batches of features, in the order in which `Batches` would have their images.

    Args:
        features: float32 of shape (images, features).
        targets: From 0 (real) to 1 (synthetic), of shape (images,).
        order: Which of them form which batch.
    """

    def __init__(self, features: Tensor, targets: npt.ArrayLike, order: Order) -> None:
        self._features, self._order = features, order
        self.targets = np.asarray(targets, dtype=np.float32)

    def __len__(self) -> int:
        return len(self._order)

    @property
    def images(self) -> int:
        """Number of images of an epoch."""
        return self._order.rows

    def part(self, index: int) -> Part:
        """Return which part of the epoch the batch with an index is."""
        return self._order.part(index)

    def strict_epoch(self, number: int) -> Iterator[Batch]:
        """Yield the batches of one epoch."""
        self._order.epoch = number
        targets = torch.from_numpy(self.targets)
        for keys in self._order:
            rows = torch.tensor([row for _, row in keys])
            places = rows % len(self._features)
            yield Batch(rows, self._features[places], targets[places], [])

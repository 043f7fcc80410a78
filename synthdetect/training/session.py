"""One training from options and data to scores, kept on disk as it goes, and not tracked."""

from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from synthdetect.config import TrainOptions
from synthdetect.datasets.manifest import Manifest
from synthdetect.datasets.prepare import Prepared
from synthdetect.images.batches import Batches, ImageFiles, Order
from synthdetect.images.cache import DecodedCache
from synthdetect.images.geometry import Preprocess
from synthdetect.models.networks import build, initialise
from synthdetect.training import checkpoint
from synthdetect.training.devices import Device
from synthdetect.training.loop import OnBatch, TrainingState, fit, predict, start_training

LAST, BEST = "last.safetensors", "best.safetensors"

_EVALUATION_BATCH = 64


class Session:
    """A network, its data and how far its training has come; goes on where a folder says it was.

    Args:
        options: of the training.
        prepared: data with a train split; a val split chooses the epoch, without one the last does.
        device: what computes.
        folder: for `LAST` and `BEST`; what a former session left there is gone on with.

    Attributes:
        network: in training, the newest weights; after `fit`, the best epoch's.
        start: where its first weights came from.
        training: its progress and history.

    Raises:
        UserError: a checkpoint that does not fit, or starting weights that are not to be had.
    """

    def __init__(
        self, options: TrainOptions, prepared: Prepared, device: Device, folder: Path
    ) -> None:
        self._options, self._prepared, self._device = options, prepared, device
        self._folder = folder
        self._preprocess = preprocessing(options)
        self._cache = decoded_cache(prepared, options)
        self.network = build(options.arch, options.image_size)
        going_on = (folder / LAST).is_file()
        if not going_on:
            self.start = initialise(self.network, options.arch, options.image_size, options.weights)
        self.training = start_training(self.network, device, options)
        if going_on:  # whatever weights are to be had by now, it began from others
            self.start = checkpoint.load(folder / LAST, self.training)

    def fit(
        self, epochs: int, *, on_batch: OnBatch, on_epoch: Callable[[TrainingState], None]
    ) -> None:
        """Train to the end, and take the best epoch's weights.

        Args:
            epochs: the most.
            on_batch: told of every batch.
            on_epoch: told of every epoch, once it is on disk.

        Raises:
            Diverged: the loss became infinite or undefined.
        """
        options, manifest = self._options, self._prepared.manifest
        train, val = manifest.split("train"), manifest.split("val")

        def keep(training: TrainingState) -> None:
            if training.progress.improved:
                checkpoint.save_network(self._folder / BEST, training.network)
            checkpoint.save(self._folder / LAST, training, self.start)
            on_epoch(training)

        fit(
            self.training,
            self._batches(train, seed=options.seed),
            self._batches(val) if len(val) else None,
            torch.tensor(train.table["label"].to_numpy(), dtype=torch.float32),
            val.table["label"].to_numpy(),
            self._device,
            options,
            unlabelled=self._target_batches(),
            epochs=epochs,
            patience=options.patience if len(val) else 0,
            seed=options.seed,
            on_batch=on_batch,
            on_epoch=keep,
        )
        checkpoint.load_network(self._folder / BEST, self.network)

    def score(
        self, splits: Iterable[str], on_batch: OnBatch = lambda images, loss: None
    ) -> dict[str, npt.NDArray[np.float64]]:
        """The network's logits of the images of some splits, in their order."""
        logits = {}
        for split in splits:
            part = self._prepared.manifest.split(split)
            batches = self._batches(part).strict_epoch(0)
            logits[split] = predict(self.network, batches, self._device, len(part), on_batch)
        return logits

    def _batches(self, manifest: Manifest, *, seed: int | None = None) -> Batches:
        """Training batches in random order if there is a seed, else evaluation batches in order."""
        dataset = ImageFiles(
            manifest.files(),
            self._preprocess,
            seed=seed,
            cache=(self._cache, self._cache.slots(manifest.table["sha256"].tolist())),
        )
        size = self._options.batch_size if seed is not None else _EVALUATION_BATCH
        return Batches(dataset, Order(len(manifest), size, seed=seed), self._device.workers)

    def _target_batches(self) -> Batches | None:
        """Batches of the images to adapt to, in random order."""
        target, seed = self._prepared.target, self._options.seed
        if target is None:
            return None
        images = target.images.seen_by(self._preprocess)
        images.seed = seed
        images.cache = (self._cache, self._cache.slots(target.hashes))
        order = Order(len(images), self._options.batch_size, seed=seed)
        return Batches(images, order, self._device.workers)


def preprocessing(options: TrainOptions) -> Preprocess:
    """How a training sees its images, and its detector every image."""
    quality = options.equalise_quality if options.equalise else 0
    return Preprocess(options.image_size, options.geometry, quality)


def decoded_cache(prepared: Prepared, options: TrainOptions) -> DecodedCache:
    """The cache for all images there are, whichever split or fold asks for them."""
    preprocess = preprocessing(options)
    limit = int(options.cache_gib * 2**30)
    hashes = prepared.manifest.table["sha256"].tolist()
    further = prepared.target.hashes if prepared.target else ()
    return DecodedCache([*hashes, *further], preprocess, limit)

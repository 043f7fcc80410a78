"""One training from options and data to logits, kept on disk as it proceeds, and not tracked."""

from collections.abc import Iterable
from pathlib import Path

from synthdetect.datasets.manifest import Manifest
from synthdetect.datasets.prepare import Prepared
from synthdetect.images.batches import Batches, ImageFiles, Images, Order
from synthdetect.images.cache import DecodedCache
from synthdetect.images.geometry import Preprocess
from synthdetect.images.options import ImageOptions
from synthdetect.models.networks import build
from synthdetect.models.spec import ModelSpec
from synthdetect.models.weights import initialise
from synthdetect.system.arrays import FloatArray
from synthdetect.training import checkpoint
from synthdetect.training.devices import Device
from synthdetect.training.loop import (
    Hooks,
    OnBatch,
    TrainingData,
    TrainingState,
    fit,
    predict,
    start_training,
)
from synthdetect.training.options import TrainingOptions

LAST, BEST = "last.safetensors", "best.safetensors"
"""The files of the whole last state and of the best epoch's weights."""

_EVALUATION_BATCH = 64


class Session:
    """A network, its data and the progress of its training, which a folder keeps.

    Args:
        options: The options of the training.
        prepared: Data with a train split. A val split chooses the best epoch; without one it is the
            last epoch.
        device: The device that computes.
        folder: Folder of `LAST` and `BEST`; the training resumes from the files of an earlier
            session.

    Attributes:
        network: While training, the newest weights; after `fit`, those of the best epoch.
        start: Where the initial weights came from.
        training: The state, with progress and history.

    Raises:
        UserError: If a checkpoint does not fit, or initial weights cannot be loaded.
    """

    def __init__(
        self, options: TrainingOptions, prepared: Prepared, device: Device, folder: Path
    ) -> None:
        self._options, self._prepared, self._device = options, prepared, device
        self._folder = folder
        self._preprocess = preprocessing(options.image)
        self._cache = decoded_cache(prepared, options)
        self.network = build(model_spec(options))
        resumes = (folder / LAST).is_file()
        if not resumes:
            self.start = initialise(self.network, options.model.weights)
        self.training = start_training(self.network, device, options)
        if resumes:  # the initial weights are those of the earlier session, whatever is found now
            self.start = checkpoint.load(folder / LAST, self.training)

    def fit(self, hooks: Hooks, *, epochs: int | None = None) -> None:
        """Train to the end, and load the weights of the best epoch.

        Args:
            hooks: Called for every batch, and for every epoch once it is on disk.
            epochs: Epochs after which to stop; None means those of the options.

        Raises:
            Diverged: If the loss becomes infinite or undefined.
        """
        manifest = self._prepared.manifest
        train, val = manifest.split("train"), manifest.split("val")
        data = TrainingData(
            self._batches(train, seed=self._options.optim.seed),
            self._batches(val) if len(val) else None,
            self._target_batches(),
        )
        fit(self.training, data, _Keeping(self, hooks), epochs=epochs)
        checkpoint.load_network(self._folder / BEST, self.network)

    def save(self) -> None:
        """Write the state to the folder, and the weights if the last epoch is the best so far."""
        if self.training.progress.improved:
            checkpoint.save_network(self._folder / BEST, self.network)
        checkpoint.save(self._folder / LAST, self.training, self.start)

    def score(
        self, splits: Iterable[str], on_batch: OnBatch | None = None
    ) -> dict[str, FloatArray]:
        """Return the logits of the images of some splits, in the order of the manifest."""
        logits = {}
        for split in splits:
            part = self._prepared.manifest.split(split)
            batches = self._batches(part).strict_epoch(0)
            logits[split] = predict(self.network, batches, self._device, len(part), on_batch)
        return logits

    def _batches(self, manifest: Manifest, *, seed: int | None = None) -> Batches:
        """Return training batches in random order if there is a seed, else evaluation batches."""
        dataset = ImageFiles(
            manifest.files(),
            self._preprocess,
            targets=manifest.table["label"],
            seed=seed,
            cache=(self._cache, self._cache.slots(manifest.table["sha256"].tolist())),
        )
        size = self._options.optim.batch_size if seed is not None else _EVALUATION_BATCH
        return self._loaded(dataset, Order(len(manifest), size, seed=seed))

    def _target_batches(self) -> Batches | None:
        """Return batches of the images to adapt to, in random order."""
        target, seed = self._prepared.target, self._options.optim.seed
        if target is None:
            return None
        images = target.images.seen_by(self._preprocess)
        images.seed = seed
        images.cache = (self._cache, self._cache.slots(target.hashes))
        return self._loaded(images, Order(len(images), self._options.optim.batch_size, seed=seed))

    def _loaded(self, images: Images, order: Order) -> Batches:
        device = self._device
        return Batches(images, order, device.workers, pin_memory=device.pin_memory)


class _Keeping(Hooks):
    """Saves every epoch before its caller hears of it."""

    def __init__(self, session: Session, hooks: Hooks) -> None:
        self._session, self._hooks = session, hooks
        self.on_batch = hooks.on_batch  # type: ignore[method-assign]

    def on_epoch(self, training: TrainingState) -> None:
        self._session.save()
        self._hooks.on_epoch(training)


def model_spec(options: TrainingOptions) -> ModelSpec:
    """Return the specification of the network that is trained."""
    model = options.model
    return ModelSpec.of(model.arch, options.image.image_size, model.front_end)


def preprocessing(options: ImageOptions) -> Preprocess:
    """Return how a training preprocesses its images, and its detector every image."""
    quality = options.equalise_quality if options.equalise else 0
    return Preprocess(options.image_size, options.geometry, quality)


def decoded_cache(prepared: Prepared, options: TrainingOptions) -> DecodedCache:
    """Return the cache for all images of the data, whichever split or fold reads them."""
    preprocess = preprocessing(options.image)
    limit = int(options.device.cache_gib * 2**30)
    hashes = prepared.manifest.table["sha256"].tolist()
    further = prepared.target.hashes if prepared.target else ()
    return DecodedCache([*hashes, *further], preprocess, limit)

"""One training from options and data to logits, kept on disk as it proceeds, and not tracked."""

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from synthdetect.datasets.labels import REAL, SYNTHETIC
from synthdetect.datasets.manifest import Manifest
from synthdetect.datasets.pairs import photographs, require_photographs
from synthdetect.datasets.prepare import Prepared
from synthdetect.datasets.splits import group_codes
from synthdetect.images.batches import (
    Batches,
    EpochBatches,
    ImageFiles,
    Images,
    Order,
    Strata,
)
from synthdetect.images.cache import DecodedCache
from synthdetect.images.geometry import Preprocess
from synthdetect.images.laundering import Laundering
from synthdetect.images.options import LaunderingOptions, SquareOptions
from synthdetect.images.pairs import Pairs, aligned_hashes
from synthdetect.images.views import MeanOverViews
from synthdetect.models.networks import AllOutputs, build
from synthdetect.models.probes import Probe
from synthdetect.models.spec import ModelSpec
from synthdetect.models.weights import initialise
from synthdetect.system.arrays import FloatArray
from synthdetect.system.console import counting
from synthdetect.system.errors import UserError
from synthdetect.training import checkpoint
from synthdetect.training.attribution import attributed_generators, generator_numbers
from synthdetect.training.devices import Device
from synthdetect.training.distributed import Group, alone
from synthdetect.training.features import FeatureBatches, features_of
from synthdetect.training.loop import (
    Hooks,
    OnBatch,
    TrainingData,
    TrainingState,
    fit,
    predict_together,
    start_training,
)
from synthdetect.training.options import TrainingOptions
from synthdetect.training.semi_supervised import reference_seed

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
        group: The processes that train together; None means this one alone. Each makes a session of
            its own with the same arguments, and calls the same methods; the first one writes to the
            folder.

    Attributes:
        network: While training, the newest weights; after `fit`, those of the best epoch.
        start: Where the initial weights came from.
        training: The state, with progress and history.

    Raises:
        UserError: If a checkpoint does not fit, if initial weights cannot be loaded, if synthetic
            images need their photographs and none has one, if there are no generators to attribute
            images to, or too few images to divide.
    """

    def __init__(
        self,
        options: TrainingOptions,
        prepared: Prepared,
        device: Device,
        folder: Path,
        group: Group | None = None,
    ) -> None:
        options = _with_pos_weight(options, prepared.manifest)
        group = group or alone(options.optim.parts)
        self._options, self._prepared, self._device = options, prepared, device
        self._folder, self._group = folder, group
        require_parts(prepared.manifest, group.division.parts)
        if options.pair.needed:
            require_photographs(prepared.manifest)
        self._preprocess = preprocessing(options.image)
        self._cache = decoded_cache(prepared, options)
        spec = replace(
            model_spec(options), generators=attributed_generators(options.loss, prepared.manifest)
        )
        self.network = build(spec)
        resumes = (folder / LAST).is_file()
        if not resumes:
            self.start = initialise(self.network, options.model.weights)
            self._fit_probe()
        self.training = start_training(self.network, device, options, group)
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
            unlabelled=self._target_batches(),
            reference=self._reference_batches(),
            generators=self._generators(train),
        )
        fit(self.training, data, _Keeping(self, hooks), epochs=epochs)
        checkpoint.load_network(self._folder / BEST, self.network)

    def save(self) -> None:
        """Write the state to the folder, and the weights if the last epoch is the best so far.

        When it returns, the files are there for all processes.
        """
        if self._group.leads:
            if self.training.progress.improved:
                checkpoint.save_network(self._folder / BEST, self.training.evaluated)
            checkpoint.save(self._folder / LAST, self.training, self.start)
        self._group.wait()

    def outputs(
        self, splits: Iterable[str], on_batch: OnBatch | None = None
    ) -> dict[str, FloatArray]:
        """Return what the network makes of the images of some splits, in the manifest's order.

        The outputs of a probe are made of the cached features, unless there are several views.

        Returns:
            The means over `views` by split, of shape (images, 1 + generators): the logit of
            "synthetic", and those of the generators.
        """
        outputs = {}
        scorer = MeanOverViews(AllOutputs(self.network), self._options.image.views)
        for split in splits:
            part = self._prepared.manifest.split(split)
            single = self._options.image.views == "single"
            batches = self._batches(part) if single else self._image_batches(part)
            outputs[split] = predict_together(self._group, scorer, batches, self._device, on_batch)
        return outputs

    def _generators(self, train: Manifest) -> npt.NDArray[np.int64] | None:
        known = self.network.spec.generators
        return generator_numbers(train.table, known) if known else None

    def _fit_probe(self) -> None:
        """Give a probe, if there is one, what it takes from the training images as a whole."""
        probe = self.network.head
        if isinstance(probe, Probe):
            train = self._prepared.manifest.split("train")
            probe.fit(self._features_of(train), torch.tensor(train.table["label"].to_numpy()))

    def _features_of(self, manifest: Manifest) -> Tensor:
        """Return the features of images, of shape (images, features)."""
        network = self.network.to(self._device.torch).to(memory_format=torch.channels_last)
        with counting("computing features") as count:
            return features_of(network, manifest, self._preprocess, self._device, count).values

    def _batches(self, manifest: Manifest, *, seed: int | None = None) -> EpochBatches:
        """Return training batches in random order if there is a seed, else evaluation batches.

        Those of a probe hold features.
        """
        if not isinstance(self.network.head, Probe):
            return self._image_batches(manifest, seed=seed)
        order = self._order(manifest, seed)
        return FeatureBatches(self._features_of(manifest), manifest.table["label"], order)

    def _image_batches(self, manifest: Manifest, *, seed: int | None = None) -> Batches:
        dataset = ImageFiles(
            manifest.files(),
            self._preprocess,
            targets=manifest.table["label"],
            seed=seed,
            cache=(self._cache, self._cache.slots(manifest.table["sha256"].tolist())),
        )
        if seed is not None:
            dataset.laundering = self._laundering(self._options.launder, seed)
            self._pair(dataset, manifest, seed)
        return self._loaded(dataset, self._order(manifest, seed))

    def _order(self, manifest: Manifest, seed: int | None) -> Order:
        division = self._group.division
        if seed is None:
            return Order(len(manifest), _EVALUATION_BATCH, division=division)
        optim = self._options.optim
        strata = _strata(manifest, optim.balance) if optim.balance != "none" else None
        groups = group_codes(manifest.table) if optim.pairs else None
        return Order(
            len(manifest),
            optim.batch_size,
            seed=seed,
            strata=strata,
            groups=groups,
            division=division,
        )

    def _target_batches(self) -> Batches | None:
        """Return batches of the images to adapt to or to learn from, in random order."""
        options = self._options
        return self._unlabelled(options.launder, options.optim.seed)

    def _reference_batches(self) -> Batches | None:
        """Return batches of the same images in the same order, as a teacher sees them."""
        options, method = self._options, self.training.objective.semi_supervised
        if method is None:
            return None
        _, launder = method.reference_changes(options.augment, options.launder)
        return self._unlabelled(launder, reference_seed(options.optim.seed))

    def _unlabelled(self, launder: LaunderingOptions, seed: int) -> Batches | None:
        """Return batches of the target, changed by a seed that their order does not depend on."""
        target, optim = self._prepared.target, self._options.optim
        if target is None:
            return None
        images = target.images.seen_by(self._preprocess)
        images.seed = seed
        images.cache = (self._cache, self._cache.slots(target.hashes))
        images.laundering = self._laundering(launder, seed)
        return self._loaded(images, Order(len(images), optim.batch_size, seed=optim.seed))

    def _pair(self, dataset: ImageFiles, train: Manifest, seed: int) -> None:
        """Align synthetic images with their photographs, if that is asked for."""
        if not self._options.pair.needed:
            return
        found = photographs(train.table)
        dataset.pairs = Pairs(self._options.pair, found, seed)
        if self._options.pair.align_quality:
            hashes = aligned_hashes(train.table["sha256"].tolist(), found)
            dataset.cache = (self._cache, self._cache.slots(hashes))

    def _laundering(self, launder: LaunderingOptions, seed: int) -> Laundering | None:
        laundering = Laundering(launder, self._options.augment.crop, seed)
        return laundering if laundering.active else None

    def _loaded(self, images: Images, order: Order) -> Batches:
        device = self._device
        return Batches(images, order, device.workers, pin_memory=device.pin_memory)


def _strata(manifest: Manifest, balance: str) -> Strata:
    """Return the rows of each class; with `generator`, those of each generator by themselves."""
    table = manifest.table
    of_class = [np.flatnonzero(table["label"] == label) for label in (REAL, SYNTHETIC)]
    if balance == "class":
        return [[rows] for rows in of_class]
    real, synthetic = of_class
    generators = table["generator"].to_numpy()[synthetic]
    return [[real], [synthetic[generators == name] for name in np.unique(generators)]]


def require_parts(manifest: Manifest, parts: int) -> None:
    """Check that the training images can be divided into parts.

    Raises:
        UserError: If a part would have less than two.
    """
    images = len(manifest.split("train"))
    if parts > 1 and images < 2 * parts:
        raise UserError(
            f"--shards: {images} training images cannot be divided into {parts} parts of two or "
            "more. Give a smaller number."
        )


def _with_pos_weight(options: TrainingOptions, manifest: Manifest) -> TrainingOptions:
    """Return the options with a number in place of `pos_weight=auto`."""
    if options.loss.pos_weight != "auto":
        return options
    labels = manifest.split("train").table["label"]
    weight = int((labels == REAL).sum()) / int((labels == SYNTHETIC).sum())
    return options.replace(pos_weight=str(weight))


class _Keeping(Hooks):
    """Saves every epoch before its caller hears of it."""

    def __init__(self, session: Session, hooks: Hooks) -> None:
        self._session, self._hooks = session, hooks
        self.on_batch = hooks.on_batch  # type: ignore[method-assign]

    def on_epoch(self, training: TrainingState) -> None:
        self._session.save()
        self._hooks.on_epoch(training)


def model_spec(options: TrainingOptions) -> ModelSpec:
    """Return the specification of the network that is trained, without generators."""
    model = options.model
    spec = ModelSpec.of(model.arch, options.image.image_size, model.front_end)
    return replace(spec, probe=model.probe, neighbours=model.neighbours, hidden=model.hidden)


def preprocessing(options: SquareOptions) -> Preprocess:
    """Return how a training preprocesses its images, and its detector every image."""
    quality = options.equalise_quality if options.equalise else 0
    return Preprocess(options.image_size, options.geometry, quality)


def decoded_cache(prepared: Prepared, options: TrainingOptions) -> DecodedCache:
    """Return the cache for all images of the data, whichever split or fold reads them.

    It keeps nothing for a probe with a single view, whose features have a cache of their own.
    """
    preprocess = preprocessing(options.image)
    features_only = model_spec(options).frozen and options.image.views == "single"
    limit = 0 if features_only else int(options.device.cache_gib * 2**30)
    table = prepared.manifest.table
    hashes = table["sha256"].tolist()
    aligned = aligned_hashes(hashes, photographs(table)) if options.pair.align_quality else ()
    further = prepared.target.hashes if prepared.target else ()
    return DecodedCache([*hashes, *aligned, *further], preprocess, limit)

"""Scoring of perturbed images, where each image is decoded once for all perturbations."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image
from torch import nn

from synthdetect.images.batches import Batch, Batches, ImageFiles, Images, Order, Pixels
from synthdetect.images.cache import DecodedCache
from synthdetect.images.contents import read_content
from synthdetect.images.geometry import Place, Preprocess
from synthdetect.images.perturbations import UNPERTURBED, VERSION, PerturbationLevel, perturb
from synthdetect.images.reading import read_image
from synthdetect.system.errors import UserError
from synthdetect.training.devices import Device
from synthdetect.training.loop import predict


class PerturbedFiles(ImageFiles):
    """Image files, each under several perturbations.

    Row `i * len(perturbations) + k` is image `i` under perturbation `k`. The last image stays
    decoded, so that consecutive rows of one image decode it once.

    Args:
        files: paths of the images.
        sha256: SHA-256 of each file.
        preprocess: preprocessing that is applied to each perturbed image.
        perturbations: any perturbation levels except `UNPERTURBED`.
        seed: seed of the perturbations' random numbers.
        cache: cache of preprocessed images, and the slot of each row in it.
    """

    def __init__(
        self,
        files: Sequence[Path | str],
        sha256: Sequence[str],
        preprocess: Preprocess,
        perturbations: Sequence[PerturbationLevel],
        *,
        seed: int,
        cache: tuple[DecodedCache, npt.NDArray[np.int64]] | None = None,
    ) -> None:
        super().__init__(files, preprocess, cache=cache)
        self.sha256 = np.asarray(sha256, dtype="S64")
        self.perturbations = tuple(perturbations)
        self.perturbation_seed = seed
        self._decoded: tuple[int, Image.Image] | None = None

        self._in_bucket = False  # an image is read once for its rows, which are no rows of files

    def __len__(self) -> int:
        return len(self.files) * len(self.perturbations)

    def name(self, row: int) -> str:
        """The image's path and the perturbation."""
        image, perturbation = divmod(row, len(self.perturbations))
        return f"{self.path(image)} under {self.perturbations[perturbation]}"

    def _make(self, row: int, place: Place) -> Pixels:
        image, perturbation = divmod(row, len(self.perturbations))
        if self._decoded is None or self._decoded[0] != image:
            self._decoded = image, read_image(read_content(self.path(image)))
        perturbed = perturb(
            self._decoded[1],
            self.perturbations[perturbation],
            self.sha256[image].decode(),
            self.perturbation_seed,
        )
        return self.preprocess.square(perturbed)


def score_perturbations(
    network: nn.Module,
    files: Sequence[Path | str],
    sha256: Sequence[str],
    preprocess: Preprocess,
    perturbations: Sequence[PerturbationLevel],
    device: Device,
    *,
    seed: int,
    batch_size: int,
    cache_limit: int,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> npt.NDArray[np.float64]:
    """Score images under each of several perturbations.

    Args:
        network: network with its weights; it is moved to the device.
        files: paths of the images.
        sha256: SHA-256 of each file.
        preprocess: preprocessing of the images.
        perturbations: distinct perturbation levels. `UNPERTURBED` images are scored in the same
            batches as in any evaluation, so their logits are equal to the last bit.
        device: device that scores, and its number of worker processes.
        seed: seed of the perturbations' random numbers.
        batch_size: images per batch; the batches of perturbed images hold whole groups of one
            image's perturbations, so they may be larger if there are many.
        cache_limit: bytes of disk space for caching preprocessed images; 0 disables the cache.
        progress: function called with the number of images scored and their total, where each
            image counts once per perturbation.

    Returns:
        The network's uncalibrated logits, shape (perturbations, images).

    Raises:
        UserError: If an image cannot be read or perturbed.
    """
    # The unperturbed images always have a view, so that one cache serves with and without them.
    perturbed = [perturbation for perturbation in perturbations if perturbation != UNPERTURBED]
    views = [f"{perturbation} seed={seed} version={VERSION}" for perturbation in perturbed]
    cache = DecodedCache(sha256, preprocess, cache_limit, [str(UNPERTURBED), *views])
    slots = np.stack([cache.slots(sha256, view) for view in range(1 + len(views))], axis=1)
    result = np.empty((len(perturbations), len(files)))
    total, done = result.size, 0
    network = network.to(device.torch)

    def count(images: int, loss: float) -> None:
        nonlocal done
        done += images
        progress(done, total)

    def scored(images: Images, size: int) -> npt.NDArray[np.float64]:
        batches = Batches(images, Order(len(images), size), device.workers)
        return predict(network, _readable(batches), device, len(images), count)

    if UNPERTURBED in perturbations:
        plain = ImageFiles(files, preprocess, cache=(cache, slots[:, 0]))
        result[perturbations.index(UNPERTURBED)] = scored(plain, batch_size)
    if perturbed:
        images = PerturbedFiles(
            files, sha256, preprocess, perturbed, seed=seed, cache=(cache, slots[:, 1:].ravel())
        )
        # If two batches shared an image, two workers would decode it.
        whole_images = max(1, batch_size // len(perturbed)) * len(perturbed)
        rows = [perturbations.index(perturbation) for perturbation in perturbed]
        result[rows] = scored(images, whole_images).reshape(len(files), len(perturbed)).T
    return result


def _readable(batches: Batches) -> Iterator[Batch]:
    for batch in batches.epoch(0):
        for row, reason in batch.unreadable:
            raise UserError(
                f"{batches.dataset.name(row)}: {reason}. Repair the image or leave it out of the "
                "data, or evaluate without --robustness and --equalised."
            )
        yield batch

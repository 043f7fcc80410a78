"""Scoring images under perturbations: each is decoded once for all of them."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image
from torch import nn

from synthdetect.images.batches import Batch, Batches, ImageFiles, Images, Order, Pixels
from synthdetect.images.cache import DecodedCache
from synthdetect.images.geometry import Preprocess
from synthdetect.images.perturbations import UNPERTURBED, VERSION, Condition, perturb
from synthdetect.images.reading import read_image
from synthdetect.system.errors import UserError
from synthdetect.training.devices import Device
from synthdetect.training.loop import predict


class PerturbedFiles(ImageFiles):
    """Image files under some conditions: row `image * len(conditions) + condition`.

    Rows that follow each other are of one image, which stays decoded for them.

    Args:
        files: the images' paths.
        sha256: of their contents.
        preprocess: how a perturbed picture becomes a square.
        conditions: any but `UNPERTURBED`.
        seed: of what is random in them.
        cache: decoded images, and the slot of each row in it.
    """

    def __init__(
        self,
        files: Sequence[Path | str],
        sha256: Sequence[str],
        preprocess: Preprocess,
        conditions: Sequence[Condition],
        *,
        seed: int,
        cache: tuple[DecodedCache, npt.NDArray[np.int64]] | None = None,
    ) -> None:
        super().__init__(files, preprocess, cache=cache)
        self.sha256 = np.asarray(sha256, dtype="S64")
        self.conditions = tuple(conditions)
        self.perturbation_seed = seed
        self._decoded: tuple[int, Image.Image] | None = None

    def __len__(self) -> int:
        return len(self.files) * len(self.conditions)

    def name(self, row: int) -> str:
        """The image's path, and what is done to it."""
        image, condition = divmod(row, len(self.conditions))
        return f"{super().name(image)} under {self.conditions[condition]}"

    def _make(self, epoch: int, row: int) -> Pixels:
        image, condition = divmod(row, len(self.conditions))
        if self._decoded is None or self._decoded[0] != image:
            data = Path(super().name(image)).read_bytes()
            self._decoded = image, read_image(data)
        changed = perturb(
            self._decoded[1],
            self.conditions[condition],
            self.sha256[image].decode(),
            self.perturbation_seed,
        )
        return self.preprocess.square(changed)


def score_conditions(
    network: nn.Module,
    files: Sequence[Path | str],
    sha256: Sequence[str],
    preprocess: Preprocess,
    conditions: Sequence[Condition],
    device: Device,
    *,
    seed: int,
    batch_size: int,
    cache_limit: int,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> npt.NDArray[np.float64]:
    """Score images under each condition.

    Args:
        network: with its weights; it is moved to the device.
        files: the images' paths.
        sha256: of their contents.
        preprocess: how the network sees a picture.
        conditions: each once. `UNPERTURBED` is scored as any evaluation scores the images, in its
            batches, to the last bit.
        device: what computes, with how many workers.
        seed: of what is random in the perturbations.
        batch_size: images at a time; a few more where an image has more conditions.
        cache_limit: bytes of decoded images kept on disk for the next time; 0 keeps none.
        progress: told how many squares are scored, of how many.

    Returns:
        The network's logits as they are, shape (conditions, images).

    Raises:
        UserError: an image cannot be read, or not be perturbed.
    """
    # "none" has its place whether it is asked for or not, so that a cache serves both.
    perturbed = [condition for condition in conditions if condition != UNPERTURBED]
    views = [f"{condition} seed={seed} version={VERSION}" for condition in perturbed]
    cache = DecodedCache(sha256, preprocess, cache_limit, [str(UNPERTURBED), *views])
    slots = np.stack([cache.slots(sha256, view) for view in range(1 + len(views))], axis=1)
    result = np.empty((len(conditions), len(files)))
    total, done = result.size, 0
    network = network.to(device.torch)

    def count(images: int, loss: float) -> None:
        nonlocal done
        done += images
        progress(done, total)

    def scored(images: Images, size: int) -> npt.NDArray[np.float64]:
        batches = Batches(images, Order(len(images), size), device.workers)
        return predict(network, _readable(batches), device, len(images), count)

    if UNPERTURBED in conditions:
        plain = ImageFiles(files, preprocess, cache=(cache, slots[:, 0]))
        result[conditions.index(UNPERTURBED)] = scored(plain, batch_size)
    if perturbed:
        changed = PerturbedFiles(
            files, sha256, preprocess, perturbed, seed=seed, cache=(cache, slots[:, 1:].ravel())
        )
        # Whole images: one that two batches share would be decoded by two workers.
        whole = max(1, batch_size // len(perturbed)) * len(perturbed)
        rows = [conditions.index(condition) for condition in perturbed]
        result[rows] = scored(changed, whole).reshape(len(files), len(perturbed)).T
    return result


def _readable(batches: Batches) -> Iterator[Batch]:
    for batch in batches.epoch(0):
        for row, reason in batch.unreadable:
            raise UserError(
                f"{batches.dataset.name(row)}: {reason}. Repair the image or leave it out, or "
                "leave out what is done to it."
            )
        yield batch

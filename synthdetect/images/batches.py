"""Batches of images, in an order that does not depend on the number of workers.

The random numbers of an image are seeded by (seed, epoch, row), and the order of an epoch by (seed,
epoch). Neither the number of workers nor a restart changes what the network sees, and there is no
random state to save.
"""

import copy
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple, Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from synthdetect.images.cache import DecodedCache
from synthdetect.images.geometry import CENTRE, Place, Preprocess
from synthdetect.images.reading import BadImage
from synthdetect.system.errors import UserError

Pixels = npt.NDArray[np.uint8]
Key = tuple[int, int]
"""(epoch, row): what a sampler asks a dataset for."""


class Item(NamedTuple):
    """One image as a dataset returns it.

    Attributes:
        row: Its row.
        pixels: The square, or the reason why the image cannot be read.
        target: 0 (real) to 1 (synthetic); nan if it is not known.
    """

    row: int
    pixels: Pixels | str
    target: float


class Batch(NamedTuple):
    """A batch of images.

    Attributes:
        rows: int64 of shape (batch,): the rows of the images in their dataset.
        images: uint8 of shape (batch, 3, size, size), channels last in memory.
        targets: float32 of shape (batch,), from 0 (real) to 1 (synthetic); nan if not known.
        unreadable: (row, reason) of the images that could not be read and are left out.
    """

    rows: Tensor
    images: Tensor
    targets: Tensor
    unreadable: list[tuple[int, str]]


class Images(Dataset[Item]):
    """Images by row, decoded to squares, with their targets if these are known.

    A subclass defines their number, their names and where their bytes come from.

    Attributes:
        preprocess: The preprocessing.
        seed: Seed of the positions of random crops; None takes the centre.
        cache: The cache of decoded images, and the slot of each row in it.
        targets: float32 of shape (images,), from 0 (real) to 1 (synthetic), if they are known.
    """

    preprocess: Preprocess
    targets: npt.NDArray[np.float32] | None = None
    seed: int | None = None
    cache: tuple[DecodedCache, npt.NDArray[np.int64]] | None = None

    def __len__(self) -> int:
        raise NotImplementedError

    def name(self, row: int) -> str:
        """Return the name of an image for messages."""
        raise NotImplementedError

    def read(self, row: int) -> bytes:
        """Return the content of the file of an image.

        Raises:
            BadImage: If it cannot be read; the message is the reason.
            OSError: If the system cannot read it.
        """
        raise NotImplementedError

    def seen_by(self, preprocess: Preprocess) -> Self:
        """Return the same images with another preprocessing."""
        images = copy.copy(self)
        images.preprocess = preprocess
        return images

    def __getitem__(self, key: Key) -> Item:
        epoch, row = key
        target = math.nan if self.targets is None else float(self.targets[row])
        try:
            return Item(row, self._square(epoch, row), target)
        except BadImage as error:
            return Item(row, str(error), target)
        except OSError as error:
            return Item(row, error.strerror or str(error), target)

    def _square(self, epoch: int, row: int) -> Pixels:
        if self.cache is not None:
            cache, slots = self.cache
            kept = cache.get(slots[row])
            if kept is not None:
                return kept
        square = self._make(epoch, row)
        if self.cache is not None:
            cache.put(slots[row], square)
        return square

    def _make(self, epoch: int, row: int) -> Pixels:
        return self.preprocess(self.read(row), self._place(epoch, row))

    def _place(self, epoch: int, row: int) -> Place:
        if self.seed is None or not self.preprocess.random:
            return CENTRE
        left, top = np.random.default_rng([self.seed, epoch, row]).random(2)
        return float(left), float(top)


class ImageFiles(Images):
    """Image files.

    Args:
        files: The paths of the images.
        preprocess: The preprocessing.
        targets: The target of each file, from 0 (real) to 1 (synthetic), if they are known.
        seed: Seed of the positions of random crops; None takes the centre.
        cache: The cache of decoded images, and the slot of each file in it.
    """

    def __init__(
        self,
        files: Sequence[Path | str],
        preprocess: Preprocess,
        *,
        targets: npt.ArrayLike | None = None,
        seed: int | None = None,
        cache: tuple[DecodedCache, npt.NDArray[np.int64]] | None = None,
    ) -> None:
        # Worker processes share one Arrow buffer, while a list would be copied page by page as its
        # reference counts change.
        self.files = pa.array([str(file) for file in files], pa.large_string())
        self.preprocess = preprocess
        self.targets = None if targets is None else np.asarray(targets, dtype=np.float32)
        self.seed = seed
        self.cache = cache

    def __len__(self) -> int:
        return len(self.files)

    def name(self, row: int) -> str:
        """Return the path of an image."""
        return str(self.files[row].as_py())

    def read(self, row: int) -> bytes:
        """Return the content of the file of an image."""
        return Path(self.name(row)).read_bytes()


class Order(Sampler[list[Key]]):
    """The rows of each batch, in a new order for each value of `epoch`.

    In random order, a single image that is left over joins the batch before it, because batch
    normalisation of one value is undefined.

    Args:
        rows: Number of rows.
        batch_size: Images per batch.
        seed: Seed of the order; None keeps the order of the rows.
        first: The first row; the rows before it are skipped.
    """

    def __init__(
        self, rows: int, batch_size: int, *, seed: int | None = None, first: int = 0
    ) -> None:
        self.rows, self.batch_size, self.seed, self.first = rows, batch_size, seed, first
        self.epoch = 0

    def __len__(self) -> int:
        return len(self._starts())

    def __iter__(self) -> Iterator[list[Key]]:
        order = np.arange(self.first, self.rows)
        if self.seed is not None:
            np.random.default_rng([self.seed, self.epoch]).shuffle(order)
        for rows in np.split(order, self._starts()[1:]) if len(order) else ():
            yield [(self.epoch, row) for row in rows.tolist()]

    def _starts(self) -> list[int]:
        rows = self.rows - self.first
        starts = list(range(0, rows, self.batch_size))
        if len(starts) > 1 and self.seed is not None and rows % self.batch_size == 1:
            starts.pop()
        return starts


class Batches:
    """Batches of a dataset, epoch after epoch, read by worker processes that stay alive.

    Args:
        dataset: The images.
        order: Which of them form which batch.
        workers: Processes that read images; 0 reads them in this process.
        pin_memory: Whether batches are read into pinned memory.
    """

    def __init__(
        self, dataset: Images, order: Order, workers: int, *, pin_memory: bool = False
    ) -> None:
        self.dataset, self.order = dataset, order
        self._loader = DataLoader(
            dataset,
            batch_sampler=order,
            num_workers=workers,
            collate_fn=_collate,
            persistent_workers=workers > 0,
            pin_memory=pin_memory,
            generator=torch.Generator(),  # the global generator is that of dropout
        )

    def __len__(self) -> int:
        return len(self.order)

    @property
    def images(self) -> int:
        """Number of images of an epoch."""
        return self.order.rows

    @property
    def targets(self) -> npt.NDArray[np.float32]:
        """The targets of all images by row, of shape (images,)."""
        assert self.dataset.targets is not None
        return self.dataset.targets

    def epoch(self, number: int) -> Iterator[Batch]:
        """Yield the batches of one epoch."""
        self.order.epoch = number
        yield from self._loader

    def strict_epoch(self, number: int) -> Iterator[Batch]:
        """Yield the batches of one epoch, none of whose images may be unreadable.

        Raises:
            UserError: If an image cannot be read any more, though it could when the run began.
        """
        for batch in self.epoch(number):
            for row, reason in batch.unreadable:
                raise UserError(
                    f"{self.dataset.name(row)}: was readable when the run began and is "
                    f"not any more: {reason}. Restore it and resume the run."
                )
            yield batch


def _collate(items: list[Item]) -> Batch:
    good = [item for item in items if not isinstance(item.pixels, str)]
    images = np.stack([item.pixels for item in good]) if good else np.empty((0, 0, 0, 3), "u1")
    return Batch(
        rows=torch.tensor([item.row for item in good], dtype=torch.int64),
        images=torch.from_numpy(images).permute(0, 3, 1, 2),
        targets=torch.tensor([item.target for item in good], dtype=torch.float32),
        unreadable=[(item.row, item.pixels) for item in items if isinstance(item.pixels, str)],
    )

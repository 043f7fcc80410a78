"""Batches of images, in an order that does not depend on the number of workers.

The random numbers of an image are seeded by (seed, epoch, row), and the order of an epoch by (seed,
epoch). Neither the number of workers nor a restart changes what the network sees, and there is no
random state to save.
"""

import copy
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple, Protocol, Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from synthdetect.images.buckets import is_url
from synthdetect.images.cache import DecodedCache
from synthdetect.images.contents import can_be_read_together, read_content, read_contents
from synthdetect.images.geometry import CENTRE, Place, Preprocess
from synthdetect.images.laundering import Laundering
from synthdetect.images.pairs import Pairs, encoded_alike
from synthdetect.images.reading import BadImage
from synthdetect.system.errors import UserError

Pixels = npt.NDArray[np.uint8]
Key = tuple[int, int]
"""(epoch, row): what a sampler asks a dataset for. Of n images, the row r + n, r + 2 n and so on is
the image of row r once more, with random numbers of its own."""

Strata = Sequence[Sequence[npt.NDArray[np.int64]]]
"""The rows of each part of each class, where an epoch is to have them equally often."""


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
        images: uint8 of shape (batch, 3, size, size), channels last in memory; or features, float32
            of shape (batch, features).
        targets: float32 of shape (batch,), from 0 (real) to 1 (synthetic); nan if not known.
        unreadable: (row, reason) of the images that could not be read and are left out.
    """

    rows: Tensor
    images: Tensor
    targets: Tensor
    unreadable: list[tuple[int, str]]


@dataclass(frozen=True)
class Division:
    """How processes divide the batches of an epoch among themselves.

    A batch of training has a fixed number of parts, and the processes have as many of them each.
    Batches of evaluation stay whole, and the processes take turns. So what is computed together
    does not depend on the number of processes.

    Attributes:
        parts: Parts of each batch of training; a multiple of `processes`.
        processes: Number of processes.
        rank: The number of this process, from 0.
    """

    parts: int = 1
    processes: int = 1
    rank: int = 0

    @property
    def own(self) -> int:
        """Parts of each batch that this process has."""
        return self.parts // self.processes

    def starts(self, images: int) -> list[int]:
        """Return where the parts of a batch of so many images begin, and where the last ends."""
        size, larger = divmod(images, self.parts)
        return [part * size + min(part, larger) for part in range(self.parts + 1)]


class Part(NamedTuple):
    """What a process trains on at a time: a batch, or a part of it.

    Attributes:
        number: Parts before it in the epoch, of all processes.
        first: Images before it in the epoch.
        whole: Images of the batch that it is a part of.
    """

    number: int
    first: int
    whole: int


class EpochBatches(Protocol):
    """Batches of labelled images, or of their features, epoch after epoch."""

    def __len__(self) -> int: ...

    @property
    def images(self) -> int:
        """Number of images of an epoch."""

    @property
    def targets(self) -> npt.NDArray[np.float32]:
        """The targets of all images by row, of shape (images,)."""

    def strict_epoch(self, number: int) -> Iterator[Batch]:
        """Yield the batches of one epoch, none of whose images may be unreadable."""

    def part(self, index: int) -> Part:
        """Return which part of the epoch a batch is that `strict_epoch` yields."""


class Images(Dataset[Item]):
    """Images by row, decoded to squares, with their targets if these are known.

    A subclass defines their number, their names and where their bytes come from.

    Attributes:
        preprocess: The preprocessing.
        seed: Seed of the positions of random crops; None takes the centre.
        cache: The cache of decoded images, and the slot of each row in it.
        pairs: Alignment of synthetic images with their photographs; None for none.
        laundering: Random resampling and re-encoding of the squares; None for none.
        targets: float32 of shape (images,), from 0 (real) to 1 (synthetic), if they are known.
    """

    preprocess: Preprocess
    targets: npt.NDArray[np.float32] | None = None
    seed: int | None = None
    cache: tuple[DecodedCache, npt.NDArray[np.int64]] | None = None
    pairs: Pairs | None = None
    laundering: Laundering | None = None

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

    def file(self, row: int) -> tuple[str, bytes | Path]:
        """Return name and content, or path, of the file that an image is from, for its metadata.

        Raises:
            BadImage: As `read`.
            OSError: As `read`.
        """
        return self.name(row), self.read(row)

    def seen_by(self, preprocess: Preprocess) -> Self:
        """Return the same images with another preprocessing."""
        images = copy.copy(self)
        images.preprocess = preprocess
        return images

    def __getitem__(self, key: Key) -> Item:
        epoch, row = key
        image, place = row % len(self), self._place(epoch, row)
        target = math.nan if self.targets is None else float(self.targets[image])
        try:
            square = self._square(image, place)
            photograph = self._photograph(image)
            if self.pairs is not None and photograph >= 0:
                partner = partial(self._square, photograph, place)
                square = self.pairs.mixed(square, partner, epoch=epoch, row=row)
            if self.laundering is not None:
                square = self.laundering(square, target=target, epoch=epoch, row=row)
            return Item(row, square, target)
        except BadImage as error:
            return Item(row, str(error), target)
        except OSError as error:
            return Item(row, error.strerror or str(error), target)

    def _square(self, row: int, place: Place) -> Pixels:
        if self.cache is not None:
            cache, slots = self.cache
            slot = slots[row]
            kept = cache.get(slot)
            if kept is not None:
                return kept
        square = self._make(row, place)
        if self.cache is not None:
            cache.put(slot, square)
        return square

    def _make(self, row: int, place: Place) -> Pixels:
        data, photograph = self.read(row), self._photograph(row)
        if self.pairs is not None and self.pairs.options.align_quality and photograph >= 0:
            return self.preprocess.square(encoded_alike(data, self.read(photograph)), place)
        return self.preprocess(data, place)

    def _photograph(self, row: int) -> int:
        """Return the row of the photograph that an image is aligned with, or -1."""
        return -1 if self.pairs is None else int(self.pairs.photographs[row])

    def _place(self, epoch: int, row: int) -> Place:
        if self.seed is None or not self.preprocess.random:
            return CENTRE
        left, top = np.random.default_rng([self.seed, epoch, row]).random(2)
        return float(left), float(top)


class ImageFiles(Images):
    """Images by their paths.

    Args:
        files: The paths of the images, as in `contents`.
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
        self._in_bucket = any(map(is_url, map(str, files)))
        self._ahead: dict[int, bytes | OSError | BadImage] = {}

    def __len__(self) -> int:
        return len(self.files)

    def name(self, row: int) -> str:
        """Return the path of an image."""
        return self.path(row)

    def read(self, row: int) -> bytes:
        """Return the content of an image."""
        content = self._ahead.get(row)
        if content is None:
            return read_content(self.path(row))
        if isinstance(content, Exception):
            raise content
        return content

    def path(self, row: int) -> str:
        """Return where an image is, which `contents.read_content` reads."""
        return str(self.files[row].as_py())

    def __getitems__(self, keys: list[Key]) -> list[Item]:
        """Return the images of a batch. Those in a bucket are fetched at the same time."""
        if self._in_bucket:
            self._ahead = self._fetched({row % len(self) for _, row in keys})
        try:
            return [self[key] for key in keys]
        finally:
            self._ahead = {}

    def _fetched(self, rows: set[int]) -> dict[int, bytes | OSError | BadImage]:
        if self.cache is not None:
            cache, slots = self.cache
            rows = {row for row in rows if not cache.has(slots[row])}
        rows |= {photograph for row in rows if (photograph := self._photograph(row)) >= 0}
        paths = {row: self.path(row) for row in sorted(rows)}
        together = {row: path for row, path in paths.items() if can_be_read_together(path)}
        try:
            return dict(zip(together, read_contents(list(together.values())), strict=True))
        except OSError as error:  # the bucket cannot be reached at all
            return dict.fromkeys(together, error)


class Order(Sampler[list[Key]]):
    """The rows of each batch, in a new order for each value of `epoch`.

    In random order, a single image that is left over joins the batch before it, because batch
    normalisation of one value is undefined. So do images of which a part would have a single one.

    With `strata`, an epoch has as many images as without, but as many of one class as of another,
    and within a class as many of one part as of another; where the number cannot be divided, chance
    decides which gets one more. A part with fewer images than its share is passed over repeatedly,
    each time in a new order, so that its images occur equally often or differ by one; a part with
    more gives a random selection without repetition, which is another one in each epoch.

    Args:
        rows: Number of rows.
        batch_size: Images per batch.
        seed: Seed of the order; None keeps the order of the rows.
        first: The first row; the rows before it are skipped.
        strata: The rows of each part of each class; needs a seed.
        groups: Group of each row, if the rows of a group are to follow each other in random order.
        division: The parts of the batches that come; by default they come whole.
    """

    def __init__(
        self,
        rows: int,
        batch_size: int,
        *,
        seed: int | None = None,
        first: int = 0,
        strata: Strata | None = None,
        groups: npt.NDArray[np.int64] | None = None,
        division: Division | None = None,
    ) -> None:
        self.rows, self.batch_size, self.seed, self.first = rows, batch_size, seed, first
        self.strata, self.groups, self.division = strata, groups, division or Division()
        self.epoch = 0

    def __len__(self) -> int:
        batches, division = len(self._starts()), self.division
        if self.seed is None:
            return len(range(division.rank, batches, division.processes))
        return batches * division.own

    def __iter__(self) -> Iterator[list[Key]]:
        order = np.arange(self.first, self.rows)
        if self.seed is not None:
            rng = np.random.default_rng([self.seed, self.epoch])
            if self.strata is not None:
                order = self._balanced(self.strata, rng)
            rng.shuffle(order)
            if self.groups is not None:
                place = rng.permutation(int(self.groups.max()) + 1)
                order = order[np.argsort(place[self.groups[order % self.rows]], kind="stable")]
        batches = np.split(order, self._starts()[1:]) if len(order) else []
        for rows in self._divided(batches):
            yield [(self.epoch, row) for row in rows.tolist()]

    def part(self, index: int) -> Part:
        """Return which part of the epoch the batch with an index is, in random order."""
        division = self.division
        batch, own = divmod(index, division.own)
        first, last = batch * self.batch_size, self._count() - 1
        whole = self.batch_size if batch < last else self.rows - self.first - first
        number = division.rank * division.own + own
        return Part(batch * division.parts + number, first + division.starts(whole)[number], whole)

    def _divided(self, batches: list[npt.NDArray[np.int64]]) -> Iterator[npt.NDArray[np.int64]]:
        division = self.division
        if self.seed is None:
            yield from batches[division.rank :: division.processes]
            return
        mine = range(division.rank * division.own, (division.rank + 1) * division.own)
        for rows in batches:
            starts = division.starts(len(rows))
            yield from (rows[starts[part] : starts[part + 1]] for part in mine)

    def _balanced(self, strata: Strata, rng: np.random.Generator) -> npt.NDArray[np.int64]:
        chosen = []
        for size, parts in zip(_shares(self.rows, len(strata), rng), strata, strict=True):
            for count, rows in zip(_shares(size, len(parts), rng), parts, strict=True):
                passes = range(math.ceil(count / len(rows)))
                repeated = [rng.permutation(rows) + number * self.rows for number in passes]
                chosen += [part[: count - i * len(rows)] for i, part in enumerate(repeated)]
        return np.concatenate(chosen)

    def _starts(self) -> list[int]:
        return [batch * self.batch_size for batch in range(self._count())]

    def _count(self) -> int:
        """Return the number of batches of an epoch, of all processes."""
        rows = self.rows - self.first
        count, left = math.ceil(rows / self.batch_size), rows % self.batch_size
        joins = self.seed is not None and 0 < left < 2 * self.division.parts
        return count - 1 if count > 1 and joins else count


def _shares(total: int, parts: int, rng: np.random.Generator) -> list[int]:
    """Divide a number into equal parts; if some must have one more, chance decides which."""
    shares = np.full(parts, total // parts)
    shares[rng.permutation(parts)[: total % parts]] += 1
    return shares.tolist()


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

    def part(self, index: int) -> Part:
        """Return which part of the epoch the batch with an index is."""
        return self.order.part(index)

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
                name = self.dataset.name(row % len(self.dataset))
                raise UserError(
                    f"{name}: was readable when the run began and is "
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

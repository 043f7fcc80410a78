"""Training in several processes: sums over parts of a batch, and what the processes exchange.

A batch is divided into a fixed number of parts (the option `shards`), each of which goes through
the network by itself. Their gradients are summed in the order of the parts whichever process
computed them, so that any number of processes gives the same weights, bit for bit. Batch
normalisation sees a part as its batch, in one process too; its running statistics become the mean
over the parts.

The sum costs as much communication as the usual all-reduce where each process has one part: every
process receives its piece of all parts' gradients, sums it, and hands out the sum.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta

import numpy as np
import numpy.typing as npt
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch._C._distributed_c10d import Store

from synthdetect.images.batches import Division
from synthdetect.models.networks import Network
from synthdetect.models.tensors import digest_of, tensors_of
from synthdetect.system.arrays import FloatArray
from synthdetect.training.objective import Step

Learn = Callable[[Step, float], tuple[Tensor, Tensor]]
"""Adds the gradient of a step's loss, times the second argument, to `.grad`, and returns the loss
and the logits, both detached."""

_OF_NORMS = ("running_mean", "running_var", "num_batches_tracked")
"""The buffers that a forward pass in training changes."""

PATIENCE = timedelta(hours=2)
"""The longest that one process waits for another that is connected. A process that has ended is
noticed at once."""


class ProcessLost(RuntimeError):
    """Another process of the training has ended, or cannot be reached."""


class Group:
    """The processes that train together, of which this is one; all call the same methods.

    Attributes:
        division: How they divide the batches, and which of them this is.
        waited: Seconds that this process has spent in communication.
    """

    def __init__(self, division: Division) -> None:
        self.division = division
        self.waited = 0.0

    @property
    def leads(self) -> bool:
        """Whether this is the first process, which alone writes and tracks."""
        return self.division.rank == 0

    def sum(self, rows: Tensor) -> Tensor:
        """Sum the rows of all processes in the order of the parts.

        Args:
            rows: A row for each part that this process has; the number of columns is a multiple of
                the number of processes.

        Returns:
            The sum, of shape (columns,), the same in all processes.
        """
        division = self.division
        if division.processes == 1:
            return _in_order(rows)
        with self._talking():
            pieces = rows.view(division.own, division.processes, -1).transpose(0, 1).contiguous()
            received = torch.empty_like(pieces)
            dist.all_to_all_single(received, pieces)
            mine = _in_order(received.flatten(0, 1))
            total = rows.new_empty(rows.shape[1])
            dist.all_gather(list(total.view(division.processes, -1)), mine)
        return total

    def union(self, values: FloatArray, held: npt.NDArray[np.bool_]) -> FloatArray:
        """Put together what each process knows a part of.

        Args:
            values: Of shape (items,), or (items, outputs).
            held: Of shape (items,): which of them this process knows. Each is known to one process.

        Returns:
            All values, the same in all processes.
        """
        if self.division.processes == 1:
            return values
        # A process that knows none of the items does not know the number of outputs either.
        own = values.shape[1] if values.ndim == 2 and held.any() else 0
        outputs = int(self._reduced(torch.tensor(own), dist.ReduceOp.MAX))
        known = np.zeros((len(held), max(1, outputs)))
        if held.any():
            known[held] = values.reshape(len(held), -1)[held]
        whole: FloatArray = self._reduced(torch.from_numpy(known), dist.ReduceOp.SUM).numpy()
        return whole if outputs else whole[:, 0]

    def placed(self, values: FloatArray, places: npt.NDArray[np.int64]) -> FloatArray:
        """Put together the values of all processes, of which each knows the places of its own.

        Args:
            values: Of shape (items, outputs).
            places: Of shape (items,): from 0 to the number of all processes' items less 1.
        """
        if self.division.processes == 1:
            return values
        count = int(sum(self.each(len(places))))
        whole, held = np.zeros((count, values.shape[1])), np.zeros(count, dtype=bool)
        whole[places], held[places] = values, True
        return self.union(whole, held)

    def throughputs(self, images: int, seconds: float) -> dict[str, float]:
        """Return the speed of each process on its share of the images, without communication.

        Args:
            images: Images of all processes.
            seconds: Seconds of this one.
        """
        processes = self.division.processes
        if processes == 1:
            return {}
        speeds = self.each(images / processes / seconds)
        return {f"process_{rank}/images_per_second": speed for rank, speed in enumerate(speeds)}

    def each(self, value: float) -> list[float]:
        """Return the value that each process gives."""
        values = np.full(self.division.processes, value)
        known = self.union(values, np.arange(len(values)) == self.division.rank)
        return [float(found) for found in known]

    def wait(self) -> None:
        """Wait until all processes have come here."""
        self.each(0.0)

    def require_same(self, network: nn.Module, epoch: int) -> None:
        """Check that all processes have the same weights after the same epoch.

        Raises:
            ProcessLost: If they have not.
        """
        if self.division.processes == 1:
            return
        mark = int(digest_of(tensors_of(network))[:12], 16)
        marks, epochs = self.each(float(mark)), self.each(float(epoch))
        for rank, found in enumerate(zip(marks, epochs, strict=True)):
            if found != (marks[0], epochs[0]):
                raise ProcessLost(
                    f"process {rank} has other weights than process 0 after epoch {epoch}. All "
                    "must run on machines of one kind and see the same folder --output."
                )

    def tell(self, content: bytes = b"", *, sender: int = 0) -> bytes:
        """Return the content that one process gives to all."""
        size = torch.tensor(len(content))
        with self._talking():
            dist.broadcast(size, sender)
            given = torch.frombuffer(bytearray(content or bytes(int(size))), dtype=torch.uint8)
            dist.broadcast(given, sender)
        return given.numpy().tobytes()

    def abandon(self) -> None:
        """Let a communication between CUDA devices fail; another thread may be waiting for it.

        Other communication fails by itself when a process ends.
        """
        if torch.cuda.is_available() and dist.group.WORLD is not None:
            dist.group.WORLD.abort()

    def _reduced(self, values: Tensor, how: dist.ReduceOp.RedOpType) -> Tensor:
        with self._talking():
            dist.all_reduce(values, how)
        return values

    @contextmanager
    def _talking(self) -> Iterator[None]:
        began = time.perf_counter()
        try:
            yield
        except RuntimeError as error:
            raise ProcessLost(f"the connection to another process is lost: {error}") from error
        finally:
            self.waited += time.perf_counter() - began


def alone(parts: int = 1) -> Group:
    """Return the group of one process, which has all parts of a batch."""
    return Group(Division(parts))


@contextmanager
def joined(division: Division, store: Store | None = None) -> Iterator[Group]:
    """Join the processes that train together.

    NCCL connects CUDA devices, and gloo everything else.

    Args:
        division: How they divide the batches, and which of them this is.
        store: Where they meet; None means as the environment variables of torchrun say.

    Raises:
        ProcessLost: If they cannot be connected.
    """
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    try:
        if store is None:
            dist.init_process_group(backend, timeout=PATIENCE)
        else:
            dist.init_process_group(
                backend,
                store=store,
                rank=division.rank,
                world_size=division.processes,
                timeout=PATIENCE,
            )
    except RuntimeError as error:
        raise ProcessLost(f"the processes cannot be connected: {error}") from error
    try:
        yield Group(division)
    finally:
        dist.destroy_process_group()


class WholeBatches:
    """Learning from batches that are not divided."""

    def __call__(self, steps: Sequence[Step], learn: Learn) -> tuple[Tensor, list[Tensor]]:
        """Learn from a batch, and return its loss and its logits."""
        (step,) = steps
        loss, logits = learn(step, 1.0)
        return loss, [logits]


class DividedBatches:
    """Learning from batches that are divided into parts.

    What a part yields (gradients, running statistics of normalisation, loss) is one row of
    numbers, weighted by the part's share of the batch. Gradients are computed right into the row.

    Args:
        network: The network that learns.
        parameters: The parameters that the optimizer changes.
        group: The processes that have the parts.
    """

    def __init__(self, network: Network, parameters: Sequence[Tensor], group: Group) -> None:
        self._group, self._parameters = group, parameters
        buffers = {n: b for n, b in network.named_buffers() if n.rpartition(".")[2] in _OF_NORMS}
        self._changing = list(buffers.values())
        self._statistics = [b for b in buffers.values() if b.is_floating_point()]
        kept = [*parameters, *self._statistics]
        used = sum(tensor.numel() for tensor in kept) + 1  # and the loss
        processes = group.division.processes
        columns = -(-used // processes) * processes
        self._rows = kept[0].new_zeros(group.division.own, columns)
        self._views = [_views(row, kept) for row in self._rows]
        self._gradient = kept[0].new_zeros(columns)
        self._gradients = _views(self._gradient, parameters)
        self._loss = used - 1

    def __call__(self, steps: Sequence[Step], learn: Learn) -> tuple[Tensor, list[Tensor]]:
        """Learn from the parts of a batch that this process has.

        Returns:
            The loss of the whole batch, and the logits of each of these parts.
        """
        before = [values.clone() for values in self._changing]
        accumulates = self._parameters[0].grad is not None
        count, logits = len(self._parameters), []
        for step, row, views in zip(steps, self._rows, self._views, strict=True):
            assert step.part is not None
            share = len(step.images) / step.part.whole
            row.zero_()
            for parameter, gradient in zip(self._parameters, views, strict=False):
                parameter.grad = gradient
            for values, old in zip(self._changing, before, strict=True):
                values.copy_(old)
            torch.manual_seed(step.seed)  # dropout and the like
            loss, answers = learn(step, share)
            logits.append(answers)
            for values, kept in zip(self._statistics, views[count:], strict=True):
                kept.copy_(values).mul_(share)
            row[self._loss] = loss * share
        total = self._group.sum(self._rows)
        means = _views(total, [*self._parameters, *self._statistics])[count:]
        for values, mean in zip(self._statistics, means, strict=True):
            values.copy_(mean)
        if accumulates:
            self._gradient.add_(total)
        else:
            self._gradient.copy_(total)
        for parameter, gradient in zip(self._parameters, self._gradients, strict=True):
            parameter.grad = gradient
        return total[self._loss], logits


Learning = WholeBatches | DividedBatches


def learning_in(group: Group, network: Network, optimizer: torch.optim.Optimizer) -> Learning:
    """Return how a group learns from its batches."""
    if group.division.parts == 1:
        return WholeBatches()
    parameters = [p for part in optimizer.param_groups for p in part["params"]]
    return DividedBatches(network, parameters, group)


def _views(row: Tensor, tensors: Sequence[Tensor]) -> list[Tensor]:
    """Return views of a row, one after another, with the shapes and memory layouts of tensors."""
    views, begin = [], 0
    for tensor in tensors:
        place = row.storage_offset() + begin
        views.append(row.as_strided(tensor.shape, tensor.stride(), place))
        begin += tensor.numel()
    return views


def _in_order(rows: Tensor) -> Tensor:
    """Sum rows one after another."""
    total = rows[0].clone()
    for row in rows[1:]:
        total += row
    return total

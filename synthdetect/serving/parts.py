"""A forward pass in parts, which takes less time than one that all threads share."""

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch

from synthdetect.serving.batching import Outputs, Squares
from synthdetect.system.arrays import FloatArray

_LEAST = 2
"""Images of a part at least."""


class InParts:
    """Computes parts of a batch side by side, each in one thread.

    Threads that share a forward pass wait for each other at every operator, actively, so that a
    request that another thread reads holds all of them up. Parts wait for each other once. Of few
    images all threads share the pass, which is faster for them.

    Args:
        outputs: The forward pass, as `Detector.outputs`.
        threads: Number of threads.
    """

    def __init__(self, outputs: Outputs, threads: int) -> None:
        self._outputs, self._threads = outputs, threads
        self._pool = ThreadPoolExecutor(threads, "part", _compute_alone)
        are_there = threading.Barrier(threads + 1)
        for _ in range(threads):
            self._pool.submit(are_there.wait)
        are_there.wait()
        torch.set_num_threads(threads)  # what later threads of the process begin with

    def __call__(self, squares: Squares) -> FloatArray:
        """Return the outputs of images, as `outputs` does.

        Raises:
            Exception: What `outputs` raises.
        """
        if self._threads == 1 or len(squares) < _LEAST * self._threads:
            return self._outputs(squares)
        parts = np.array_split(squares, self._threads)
        return np.concatenate(list(self._pool.map(self._outputs, parts)))


def _compute_alone() -> None:
    """Let this thread compute without others, whatever number of threads is set later."""
    torch.set_num_threads(1)
    torch.get_num_threads()  # a thread takes over the number of the process once, and that is now

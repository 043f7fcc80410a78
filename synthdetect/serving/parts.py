"""A forward pass in parts, which takes less time than one that all threads share."""

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch

from synthdetect.serving.batching import Outputs, Squares
from synthdetect.system.arrays import FloatArray


class InParts:
    """Computes parts of a batch side by side, each in one thread.

    Threads that share a forward pass wait for each other at every operator, actively, so that a
    request that another thread reads holds all of them up. Parts wait for each other once. A single
    image is computed by all threads.

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
        if len(squares) == 1 or self._threads == 1:
            return self._outputs(squares)
        parts = np.array_split(squares, min(self._threads, len(squares)))
        return np.concatenate(list(self._pool.map(self._outputs, parts)))


def _compute_alone() -> None:
    """Let this thread compute without others, whatever number of threads is set later."""
    torch.set_num_threads(1)
    torch.get_num_threads()  # a thread takes over the number of the process once, and that is now

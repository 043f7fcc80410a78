"""Scoring the images of several requests in one forward pass, which takes less time per image."""

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future

import numpy as np
import numpy.typing as npt

from synthdetect.system.arrays import FloatArray

BATCH = 16
"""Most images of a forward pass. With 32, glibc gives memory back to the system after each pass of
a resnet18 at 224 pixels, and the next one faults it in again; with 16 it keeps the memory."""
_log = logging.getLogger(__name__)
Squares = npt.NDArray[np.uint8]
Outputs = Callable[[Squares], FloatArray]
"""Computes the outputs of preprocessed images, as `Detector.outputs`."""
Score = Callable[[Callable[[], Squares]], FloatArray]
"""Scores what a function prepares: preprocessed images, as for `Detector.outputs`."""
Watch = Callable[[int, float], None]
"""Is told of each forward pass: its number of images, and its seconds."""


class Batches:
    """Scores images that several threads prepare, together where they are there together.

    A forward pass takes the images that became ready while the one before it ran. Before it begins
    it waits for images that are being prepared. If several clients are asking, it also waits for
    as many requests as were just answered: clients that ask again at once would otherwise fall into
    groups, each waiting for the pass of the other. The images of a lone client are scored at once.

    Args:
        outputs: The forward pass, as `Detector.outputs`; it is called in one thread.
        most: Most images of a pass, unless one request alone has more.
        wait: Seconds to wait at most for the next request, or for one to be prepared.
        watch: Is told of each pass.
    """

    def __init__(
        self,
        outputs: Outputs,
        most: int = BATCH,
        wait: float = 0.004,
        watch: Watch = lambda images, seconds: None,
    ) -> None:
        self._outputs, self._most, self._wait, self._watch = outputs, most, wait, watch
        self._ready: deque[tuple[Squares, Future[FloatArray]]] = deque()
        self._coming = self._answered = 0
        self._changed = threading.Condition()
        threading.Thread(target=self._run, name="scoring", daemon=True).start()

    def __call__(self, prepare: Callable[[], Squares]) -> FloatArray:
        """Prepare images in this thread, and return their outputs.

        Raises:
            Exception: What `prepare` or the forward pass raises.
        """
        future: Future[FloatArray] = Future()
        with self._changed:
            self._coming += 1
            self._changed.notify_all()
        try:
            squares = prepare()
        except BaseException:
            with self._changed:
                self._coming -= 1
                self._changed.notify_all()
            raise
        with self._changed:
            self._coming -= 1
            self._ready.append((squares, future))
            self._changed.notify_all()
        return future.result()

    def _run(self) -> None:
        while True:
            parts, futures = zip(*self._next(), strict=True)
            sizes = [len(part) for part in parts]
            began = time.perf_counter()
            try:
                outputs = self._outputs(np.concatenate(parts) if len(parts) > 1 else parts[0])
            except Exception as error:
                for future in futures:
                    future.set_exception(error)
                continue
            seconds = time.perf_counter() - began
            with self._changed:
                is_alone = len(parts) == 1 and not self._ready and not self._coming
                self._answered = 0 if is_alone else len(parts)
            for future, part in zip(futures, np.split(outputs, np.cumsum(sizes)[:-1]), strict=True):
                future.set_result(part)
            try:
                self._watch(sum(sizes), seconds)
            except Exception:  # such as a full disk: scoring must go on
                _log.exception("a forward pass was not counted")

    def _next(self) -> list[tuple[Squares, Future[FloatArray]]]:
        with self._changed:
            self._changed.wait_for(lambda: self._ready)
            expected = len(self._ready) + self._answered
            while not self._is_complete(expected) and self._changed.wait(self._wait):
                pass  # something has changed in time
            taken = [self._ready.popleft()]
            images = len(taken[0][0])
            while self._ready and images + len(self._ready[0][0]) <= self._most:
                taken.append(self._ready.popleft())
                images += len(taken[-1][0])
            return taken

    def _is_complete(self, requests: int) -> bool:
        images = sum(len(squares) for squares, _ in self._ready)
        return images >= self._most or (not self._coming and len(self._ready) >= requests)

"""Scoring by Ray Data: actors on CPU cores that hold the detectors, each reading its own images.

A row of the dataset is a batch, so that batches hold the same images as without Ray. The results
come back in the order of the images, and this process keeps them as it keeps its own: what is
scored survives a kill, whichever engine goes on.
"""

import logging
import os
import shutil
import signal
import socket
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from synthdetect.detectors.engines.exported import load_detector
from synthdetect.detectors.scoring import Scored, scored
from synthdetect.images.batches import Batches, Images, Order
from synthdetect.system.errors import UserError
from synthdetect.system.extras import require_extra
from synthdetect.training.devices import Device, deterministic

_ADDRESS = "RAY_ADDRESS"
_CPU = Device("cpu", "fp32", 0)
_ANSWERS_WITHIN = 10.0  # seconds
_MOST_BLOCKS = 4096  # of a dataset; each is planned at the start, and one task scores it

_QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_DATA_DISABLE_PROGRESS_BARS": "1",
    "RAY_BACKEND_LOG_LEVEL": "fatal",  # what goes wrong is raised
}
_LOCAL = {
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # on every system: listen on loopback only
    "RAY_worker_niceness": "0",  # else workers give way to every other process
}


@dataclass(frozen=True)
class DetectorFile:
    """A detector as an actor reads it.

    Attributes:
        path: Its file, which is loaded as any other: nothing in it can execute.
        views: The views that it scores under.
    """

    path: Path
    views: str


class RayEngine:
    """An engine that scores by actors. `ray_engine` makes it.

    Args:
        files: The detectors of the scoring.
        actors: Number of actors, each on one CPU core.
    """

    def __init__(self, files: Sequence[DetectorFile], actors: int) -> None:
        self._files, self._actors = files, actors

    def __call__(
        self, numbers: Sequence[int], images: Images, batch_size: int, first: int
    ) -> Iterator[Scored]:
        """Yield batch after batch, as `Engine` says."""
        import ray

        batches = range(first // batch_size, -(-len(images) // batch_size))
        if not batches:
            return
        listed = ray.put(images)  # once, in memory that the processes of a machine share
        files = [self._files[number] for number in numbers]
        dataset = ray.data.range(len(batches), override_num_blocks=min(len(batches), _MOST_BLOCKS))
        results = dataset.map(
            _Actor,
            fn_constructor_args=(files, listed, batch_size, batches.start),
            compute=ray.data.ActorPoolStrategy(size=min(self._actors, len(batches))),
            num_cpus=1,
        )
        for row in results.iter_rows():
            yield _decoded(row)


class _Actor:
    """Scores batches by their number. It lives in a process of Ray."""

    def __init__(
        self, files: Sequence[DetectorFile], images: Any, batch_size: int, first: int
    ) -> None:
        import ray

        torch.set_num_threads(1)
        detectors = [load_detector(file.path).with_card(views=file.views) for file in files]
        self._scorers = [detector.full_scorer for detector in detectors]
        self._widths = [detector.width for detector in detectors]
        self._images: Images = ray.get(images)
        self._batch_size, self._first = batch_size, first

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        begin = (self._first + int(row["id"])) * self._batch_size
        end = min(begin + self._batch_size, len(self._images))
        order = Order(end, self._batch_size, first=begin)
        with deterministic(0):
            (batch,) = Batches(self._images, order, 0).epoch(0)
            return _encoded(scored(batch, self._scorers, self._widths, _CPU))


@contextmanager
def ray_engine(files: Sequence[DetectorFile], actors: int = 0) -> Iterator[RayEngine]:
    """Start Ray, or connect to the cluster at `RAY_ADDRESS`, and stop or leave it at the end.

    What is started here listens on loopback only, has no dashboard, and reports nothing.

    Args:
        files: The detectors. On a cluster, every machine must see them and the images under the
            same paths.
        actors: Number of actors; 0 for one on each CPU core.

    Raises:
        UserError: If Ray is not installed, would listen on other addresses than loopback, or the
            cluster does not answer.
    """
    require_extra("scale", "--engine ray", "ray")
    with ExitStack() as stack:
        address = os.environ.get(_ADDRESS, "")
        stack.enter_context(_environment({**_QUIET, **({} if address else _LOCAL)}))
        import ray

        logging.getLogger("ray").setLevel(logging.ERROR)
        own: dict[str, Any] = {"address": address}
        if not address:
            folder = tempfile.mkdtemp(prefix="ray-")  # a short path, since it holds sockets
            stack.callback(shutil.rmtree, folder, ignore_errors=True)
            cores = actors or len(os.sched_getaffinity(0))
            own = {
                "address": "local",
                "num_cpus": cores,
                "include_dashboard": False,
                "_temp_dir": folder,
                "_node_ip_address": "127.0.0.1",
            }
        stack.callback(ray.shutdown)
        try:
            _require_answer(address)
            with _own_signals():
                ray.init(**own, log_to_driver=False, logging_level=logging.ERROR)
        except OSError as error:  # Ray's too
            if not address:
                raise
            raise UserError(
                f"{_ADDRESS} {address}: {error}. Give the address that `ray start` printed and, "
                "for a cluster with a token, RAY_AUTH_MODE=token."
            ) from error
        if not address and (listens := ray.util.get_node_ip_address()) != "127.0.0.1":
            raise UserError(
                f"--engine ray: Ray would listen on {listens}, because it was imported before with "
                "other settings. Start a new process."
            )
        import ray.data

        logging.getLogger("ray.data").setLevel(logging.ERROR)  # its import sets another
        context = ray.data.DataContext.get_current()
        context.execution_options.preserve_order = True
        context.enable_progress_bars = False
        cores = int(ray.cluster_resources().get("CPU", 0))
        if actors > cores:
            raise UserError(f"--workers: the cluster has {cores} cores; give at most as many.")
        yield RayEngine(files, actors or cores)


def _require_answer(address: str) -> None:
    """Check that something listens at an address, for which Ray would wait for minutes.

    Raises:
        OSError: If nothing does.
    """
    host, _, port = address.rpartition("://")[2].rpartition(":")
    if port.isdigit():
        socket.create_connection((host.strip("[]"), int(port)), timeout=_ANSWERS_WITHIN).close()


def _encoded(batch: Scored) -> dict[str, Any]:
    """Return a batch as columns of bytes and texts, which Ray takes as they are."""
    return {
        "rows": np.asarray(batch.rows, np.int64).tobytes(),
        "outputs": np.ascontiguousarray(batch.outputs, np.float64).tobytes(),
        "width": batch.outputs.shape[1],
        "unreadable": np.asarray([row for row, _ in batch.unreadable], np.int64).tobytes(),
        "reasons": "\0".join(reason for _, reason in batch.unreadable),
    }


def _decoded(row: dict[str, Any]) -> Scored:
    outputs = np.frombuffer(row["outputs"], np.float64).reshape(-1, row["width"])
    unreadable = np.frombuffer(row["unreadable"], np.int64).tolist()
    reasons = row["reasons"].split("\0") if unreadable else []
    return Scored(
        np.frombuffer(row["rows"], np.int64).tolist(),
        outputs,
        list(zip(unreadable, reasons, strict=True)),
    )


@contextmanager
def _environment(values: dict[str, str]) -> Iterator[None]:
    """Set variables of the environment, which Ray and its processes read; restore them."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name)
            else:
                os.environ[name] = value


@contextmanager
def _own_signals() -> Iterator[None]:
    """Keep the handler of SIGTERM, which Ray replaces by one that ends the process at once."""
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)

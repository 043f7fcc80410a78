"""Several processes that serve on one address."""

import logging
import os
import signal
import socket
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING

import uvicorn
from uvicorn.config import STARTUP_FAILURE
from uvicorn.supervisors.multiprocess import SIGNALS, Multiprocess

from synthdetect.serving.connections import settings_for
from synthdetect.serving.options import ServeOptions
from synthdetect.system.threads import apart

if TYPE_CHECKING:
    from synthdetect.serving.limits import App

FOLDER = "PROMETHEUS_MULTIPROC_DIR"
"""Environment variable: the folder through which the processes of a server add up their counts."""
_log = logging.getLogger(__name__)


def run_processes(
    make: Callable[[ServeOptions], "App"],
    options: ServeOptions,
    threads: int,
    listening: socket.socket,
) -> None:
    """Serve in several processes until a signal ends the server, and raise that signal then.

    Args:
        make: Makes the application, in each process; a function of a module.
        options: Its argument.
        threads: Number of threads of a forward pass.
        listening: The socket.

    Raises:
        RuntimeError: If a process cannot start.
    """
    # A process imports its module only when it is called: that takes longer than the process may be
    # silent.
    made = partial(_made_in_a_process, make.__module__, make.__name__, options, threads)
    settings = settings_for(made, options.timeout)
    settings.factory, settings.workers = True, options.processes
    with tempfile.TemporaryDirectory() as folder:
        os.environ[FOLDER] = folder
        _Supervisor(settings, [listening]).serve()


def _made_in_a_process(module: str, name: str, options: ServeOptions, threads: int) -> "App":
    import torch

    torch.set_num_threads(threads)
    try:
        made: App = apart(getattr(import_module(module), name), options)
        return made
    except Exception as error:
        _log.error("%s: %s", type(error).__name__, error)
        sys.exit(STARTUP_FAILURE)  # another attempt would fail as well


class _Supervisor(Multiprocess):
    """Starts the processes of a server, and another one in place of each that dies."""

    def __init__(self, settings: uvicorn.Config, sockets: list[socket.socket]) -> None:
        self._handlers = {number: signal.getsignal(number) for number in SIGNALS}
        self._ended_by: int | None = None
        super().__init__(settings, sockets)

    def handle_signals(self) -> None:
        for number in self.signal_queue:
            if number in (signal.SIGINT, signal.SIGTERM):
                self._ended_by = number
        super().handle_signals()

    def serve(self) -> None:
        """Run until a signal ends the server, which is then raised as uvicorn's own server does.

        Raises:
            RuntimeError: If a process cannot start.
        """
        self.run()
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        if self._ended_by is None:
            raise RuntimeError("a process of the server cannot start; its error is above")
        signal.raise_signal(self._ended_by)

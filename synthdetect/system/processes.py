"""Naming a process among all of all machines, so that a later one can tell whether it has ended."""

import os
import socket

import psutil

_TOLERANCE = 2.0  # seconds; far less than a machine takes to come to the same process id again


def this_process() -> str:
    """What names this process: the machine, the process id, and its start in seconds since boot."""
    return f"{socket.gethostname()} {os.getpid()} {_since_boot(psutil.Process()):.2f}"


def is_gone(text: str) -> bool:
    """Whether a process was of this machine, and is not any more.

    Args:
        text: as `this_process` gave it; any other names no process that could be gone.
    """
    host, *rest = text.split(" ")
    if host != socket.gethostname() or len(rest) != 2:
        return False
    try:
        number, start = int(rest[0]), float(rest[1])
    except ValueError:
        return False
    try:
        process = psutil.Process(number)
        other = abs(_since_boot(process) - start) > _TOLERANCE
        return other or process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def is_another_alive(text: str) -> bool:
    """Whether a process is another one of this machine, and has not ended."""
    host, number, *_ = [*text.split(" "), ""]
    ours = host == socket.gethostname() and number != str(os.getpid())
    return ours and not is_gone(text)


def _since_boot(process: psutil.Process) -> float:
    """When a process started. Both times move alike when the system's clock is set."""
    return float(process.create_time() - psutil.boot_time())

"""Identify a process across machines, so that a later process can tell whether it has ended."""

import os
import socket

import psutil

# Seconds. A machine takes far longer than this to assign the same process id again.
_TOLERANCE = 2.0


def this_process() -> str:
    """Identify this process: host name, process id and start time in seconds since boot."""
    return f"{socket.gethostname()} {os.getpid()} {_since_boot(psutil.Process()):.2f}"


def is_gone(text: str) -> bool:
    """Whether a process ran on this machine and has ended.

    Args:
        text: The return value of `this_process`. Any other text gives False.
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
    """Whether a process is a different process of this machine that is still running.

    Args:
        text: The return value of `this_process`.
    """
    host, number, *_ = [*text.split(" "), ""]
    ours = host == socket.gethostname() and number != str(os.getpid())
    return ours and not is_gone(text)


def _since_boot(process: psutil.Process) -> float:
    # Setting the system clock shifts both times alike, so that their difference stays the same.
    return float(process.create_time() - psutil.boot_time())

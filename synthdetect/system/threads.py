"""Computing without leaving threads behind."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

Result = TypeVar("Result")


def apart(function: Callable[..., Result], *arguments: object) -> Result:
    """Call a function in a thread that ends, and with it the threads that torch computed with.

    Torch computes with a set of threads for each thread that asks it to. While a process has more
    of them than cores, libgomp lets those of a forward pass sleep between its operators instead of
    waiting actively: where loading a network has left a set to the main thread, a pass takes longer
    in another one.

    Raises:
        Exception: What the function raises.
    """
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(function, *arguments).result()

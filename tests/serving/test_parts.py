"""Tests of a forward pass in parts."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
import torch

from synthdetect.serving.parts import InParts


class Seen:
    """A forward pass that returns its images' values, and notes how it was computed."""

    def __init__(self) -> None:
        self.calls: list[tuple[int, int]] = []  # images, and torch's threads

    def __call__(self, squares: Any) -> Any:
        self.calls.append((len(squares), torch.get_num_threads()))
        if 255 in squares:
            raise ValueError("no pass")
        return squares.reshape(-1, 1).astype(float)


def computed(seen: Seen, threads: int, images: int) -> list[float]:
    """Compute in a thread of its own, as a server does, whose number of threads ends with it."""

    def compute() -> list[float]:
        torch.set_num_threads(threads)
        passes = InParts(seen, threads)
        assert torch.get_num_threads() == threads
        found: list[float] = passes(np.arange(images, dtype=np.uint8).reshape(-1, 1, 1, 1))[:, 0]
        return list(found)

    kept = torch.get_num_threads()
    try:
        with ThreadPoolExecutor(1) as pool:
            return pool.submit(compute).result(60)
    finally:
        torch.set_num_threads(kept)


@pytest.mark.parametrize(
    ("threads", "images", "calls"),
    [
        (3, 7, [(2, 1), (2, 1), (3, 1)]),
        (3, 6, [(2, 1), (2, 1), (2, 1)]),
        (3, 5, [(5, 3)]),
        (3, 1, [(1, 3)]),
        (1, 4, [(4, 1)]),
    ],
)
def test_each_part_has_a_thread_and_few_images_have_all(
    threads: int, images: int, calls: list[tuple[int, int]]
) -> None:
    seen = Seen()
    assert computed(seen, threads, images) == list(range(images))
    assert sorted(seen.calls) == calls


def test_an_error_of_a_part_reaches_the_caller() -> None:
    with pytest.raises(ValueError, match="no pass"):
        computed(Seen(), 2, 256)

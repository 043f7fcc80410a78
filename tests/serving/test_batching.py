"""Tests of scoring the images of several requests together."""

import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from synthdetect.serving.batching import Batches, Squares


def squares(*values: int) -> Squares:
    """One image of one pixel for each value."""
    return np.array(values, np.uint8).reshape(-1, 1, 1, 1)


class Pass:
    """A forward pass that returns its images' values, and that can be held up."""

    def __init__(self) -> None:
        self.sizes: list[int] = []
        self.began, self.may_end = threading.Event(), threading.Event()
        self.may_end.set()

    def __call__(self, images: Squares) -> Any:
        self.began.set()
        self.may_end.wait(30)
        self.sizes.append(len(images))
        if 255 in images:
            raise ValueError("no pass")
        return images.reshape(-1, 1).astype(float)


@pytest.fixture
def run() -> Pass:
    return Pass()


def held_up(run: Pass, batches: Batches, pool: ThreadPoolExecutor) -> "Future[Any]":
    """Begin a pass with one image, which ends when `run.may_end` is set."""
    run.may_end.clear()
    first = pool.submit(batches, lambda: squares(1))
    assert run.began.wait(30)
    return first


def ready(batches: Batches, count: int) -> None:
    """Wait until so many requests are prepared."""
    with batches._changed:
        assert batches._changed.wait_for(lambda: len(batches._ready) == count, 30)


def test_a_lone_request_is_scored_at_once(run: Pass) -> None:
    batches = Batches(run, wait=1000)
    for value in range(3):
        assert batches(lambda value=value: squares(value, value + 1)).tolist() == [  # type: ignore[misc]
            [value], [value + 1]
        ]  # fmt: skip
    assert run.sizes == [2, 2, 2]


def test_requests_that_come_during_a_pass_are_scored_together(run: Pass) -> None:
    told: list[int] = []
    batches = Batches(run, watch=lambda images, seconds: told.append(images))
    with ThreadPoolExecutor(8) as pool:
        first = held_up(run, batches, pool)
        others = []
        for value in (2, 3, 4):
            others.append(pool.submit(batches, lambda value=value: squares(value, value * 10)))  # type: ignore[misc]
            ready(batches, len(others))
        run.may_end.set()
        assert first.result(30).tolist() == [[1]]
        assert [other.result(30).tolist() for other in others] == [
            [[2], [20]], [[3], [30]], [[4], [40]]
        ]  # fmt: skip
    assert run.sizes == told == [1, 6]


def test_a_pass_has_no_more_images_than_allowed_unless_one_request_has(run: Pass) -> None:
    batches = Batches(run, most=3)
    with ThreadPoolExecutor(8) as pool:
        first = held_up(run, batches, pool)
        others = []
        for number in (2, 1, 2, 5):
            others.append(pool.submit(batches, lambda number=number: squares(*range(number))))  # type: ignore[misc]
            ready(batches, len(others))
        run.may_end.set()
        assert [len(other.result(30)) for other in (first, *others)] == [1, 2, 1, 2, 5]
    assert run.sizes == [1, 3, 2, 5]


@pytest.mark.parametrize(("wait", "sizes"), [(30, [2]), (0.01, [1, 1])])
def test_a_pass_waits_for_images_that_are_being_prepared_but_not_for_long(
    run: Pass, wait: float, sizes: list[int]
) -> None:
    batches = Batches(run, wait=wait)
    preparing, may_end = threading.Event(), threading.Event()

    def slow() -> Squares:
        preparing.set()
        may_end.wait(30)
        return squares(7)

    with ThreadPoolExecutor(8) as pool:
        other = pool.submit(batches, slow)
        assert preparing.wait(30)
        first = pool.submit(batches, lambda: squares(8))
        if wait < 1:
            assert first.result(30).tolist() == [[8]]
        else:
            ready(batches, 1)
        may_end.set()
        assert (first.result(30).tolist(), other.result(30).tolist()) == ([[8]], [[7]])
    assert run.sizes == sizes


@pytest.mark.parametrize(("wait", "sizes"), [(30, [1, 2]), (0.01, [1, 1])])
def test_a_pass_waits_for_clients_that_ask_again_at_once_but_not_for_long(
    run: Pass, wait: float, sizes: list[int]
) -> None:
    batches = Batches(run, wait=wait)
    with ThreadPoolExecutor(8) as pool:
        first = held_up(run, batches, pool)
        other = pool.submit(batches, lambda: squares(2))
        ready(batches, 1)
        run.may_end.set()
        assert first.result(30).tolist() == [[1]]
        if wait > 1:
            assert batches(lambda: squares(3)).tolist() == [[3]]
        assert other.result(30).tolist() == [[2]]
    assert run.sizes == sizes


def test_a_client_that_has_become_the_only_one_is_not_slowed_down(run: Pass) -> None:
    batches = Batches(run, wait=0.01)
    with ThreadPoolExecutor(8) as pool:
        first = held_up(run, batches, pool)
        other = pool.submit(batches, lambda: squares(2))
        ready(batches, 1)
        run.may_end.set()
        assert (first.result(30).tolist(), other.result(30).tolist()) == ([[1]], [[2]])
    batches._wait = 1000  # no pass waits from now on
    for value in (3, 4, 5):
        assert batches(lambda value=value: squares(value)).tolist() == [[value]]  # type: ignore[misc]
    assert run.sizes == [1, 1, 1, 1, 1]


def failing() -> Squares:
    raise ValueError("no image")


@pytest.mark.parametrize(
    ("prepare", "message"), [(failing, "no image"), (lambda: squares(255), "no pass")]
)
def test_an_error_reaches_its_request_and_the_next_one_is_scored(
    run: Pass, prepare: Callable[[], Squares], message: str
) -> None:
    batches = Batches(run, wait=1000)
    with pytest.raises(ValueError, match=message):
        batches(prepare)
    assert batches(lambda: squares(3)).tolist() == [[3]]


def test_a_pass_that_cannot_be_counted_ends_nothing(run: Pass) -> None:
    def uncounted(images: int, seconds: float) -> None:
        raise OSError("no space left on device")

    batches = Batches(run, watch=uncounted)
    for value in (1, 2):
        assert batches(lambda value=value: squares(value)).tolist() == [[value]]  # type: ignore[misc]

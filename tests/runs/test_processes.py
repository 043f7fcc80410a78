"""How many processes train together, by the options or by torchrun."""

import json
from typing import Any

import pytest

from synthdetect.runs.options import CvOptions, TrainOptions
from synthdetect.runs.processes import (
    _REFUSED,
    _Ended,
    follows,
    local_processes,
    with_processes,
)
from synthdetect.system.errors import UserError


def options(**given: Any) -> TrainOptions:
    return TrainOptions.resolve(given)


@pytest.fixture
def torchrun(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """The environment of the first of four processes that torchrun starts."""
    for name, value in {"RANK": "0", "WORLD_SIZE": "4", "MASTER_ADDR": "here"}.items():
        monkeypatch.setenv(name, value)
    return monkeypatch


def test_without_the_option_nothing_is_divided() -> None:
    found = with_processes(options())
    assert found == options()
    assert (found.optim.parts, local_processes(found)) == (1, 1)


@pytest.mark.parametrize(("shards", "parts"), [(0, 2), (4, 4)])
def test_a_batch_has_as_many_parts_as_processes_by_default(shards: int, parts: int) -> None:
    found = with_processes(options(processes=2, shards=shards))
    assert (found.optim.shards, found.optim.parts, local_processes(found)) == (parts, parts, 2)


def test_torchrun_says_how_many_there_are_and_divides_the_cores(
    torchrun: pytest.MonkeyPatch,
) -> None:
    found = with_processes(options())
    assert (found.parallel.processes, found.optim.shards, local_processes(found)) == (4, 4, 1)
    assert not follows()
    torchrun.setenv("RANK", "1")
    assert follows()
    with pytest.raises(UserError, match="torchrun started 4"):
        with_processes(options(processes=2))
    with pytest.raises(UserError, match=r"--shards 6"):
        with_processes(options(shards=6))


def test_a_run_that_is_not_divided_goes_on_in_one_process() -> None:
    with pytest.raises(UserError, match=r"--processes 2: run abc .* in one process"):
        with_processes(options(processes=2, resume="abc"))


def test_folds_are_trained_in_one_process() -> None:
    with pytest.raises(UserError, match=r"--processes 2: folds"):
        CvOptions.resolve({"processes": 2})
    assert CvOptions.resolve({"shards": 2}).optim.parts == 2


def test_what_a_follower_refuses_is_refused_as_by_the_first_process() -> None:
    refused = _Ended(2, _REFUSED, json.dumps("a.png: cannot be read.\nRepair it."))
    assert refused.refused == "a.png: cannot be read.\nRepair it."
    other = _Ended(1, 1, "RuntimeError: a signal was lost")
    assert other.refused == ""
    assert other.reason.endswith("exit status 1: RuntimeError: a signal was lost")
    assert _Ended(1, -9, "").reason == "process 1, beside process 0, ended with signal 9"

"""What a machine does to a command, but for killing it: and what is left is gone on with.

A limit on the size of files is what a full disk looks like to whoever writes: an `OSError` in the
middle of a file.
"""

import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.faults.kills import (
    COMMANDS,
    Place,
    data_in,
    differences,
    newest,
    signature,
    torment,
    train_detector,
)

pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return data_in(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def detector(tmp_path_factory: pytest.TempPathFactory, data: Path) -> Path:
    folder = tmp_path_factory.mktemp("detector")
    train_detector(Place(folder / "place", data, folder / "detector.safetensors"))
    return folder / "detector.safetensors"


@pytest.fixture(scope="module")
def wanted(
    tmp_path_factory: pytest.TempPathFactory, data: Path, detector: Path
) -> Callable[[str], dict[str, Any]]:
    """What a command leaves when nothing happens."""
    known: dict[str, dict[str, Any]] = {}

    def of(command: str) -> dict[str, Any]:
        if command not in known:
            place = Place(tmp_path_factory.mktemp(command) / "whole", data, detector)
            assert place.start(COMMANDS[command][0](place)).wait() == 0
            known[command] = signature(place)
        return known[command]

    return of


def said(place: Place) -> str:
    return (place.folder / "output.txt").read_text()


def when(place: Place, process: "Any", text: str) -> psutil.Process:
    """The process, once it has printed something."""
    for _ in range(4000):
        if text in said(place):
            return psutil.Process(process.pid)
        assert process.poll() is None, said(place)
        time.sleep(0.02)
    raise AssertionError(said(place))


def require_same(place: Place, command: str, wanted: dict[str, Any]) -> None:
    """Gone on with, it comes to what it would have come to."""
    assert "Traceback" not in said(place)
    assert not [run for run in place.runs() if run.info.status == "RUNNING"]
    _, go_on = COMMANDS[command]
    assert place.start(go_on(place)).wait() == 0, said(place)
    assert differences(wanted, signature(place)) == []


BEGUN = "epoch   1/"


@pytest.mark.parametrize("command", ["train", "cv"])
def test_a_full_disk(
    command: str, tmp_path: Path, data: Path, detector: Path,
    wanted: Callable[[str], dict[str, Any]],
) -> None:  # fmt: skip
    place = Place(tmp_path / "place", data, detector)
    process = place.start(COMMANDS[command][0](place))
    limit = 2**21  # the databases stay below, checkpoints do not
    when(place, process, BEGUN).rlimit(psutil.RLIMIT_FSIZE, (limit, limit))
    assert process.wait(timeout=300) == 1, said(place)
    run = newest(place, command)
    assert run
    assert run.info.status == "FAILED"
    assert "too large" in said(place)  # the reason
    require_same(place, command, wanted(command))


def test_a_memory_limit(
    tmp_path: Path, data: Path, detector: Path, wanted: Callable[[str], dict[str, Any]]
) -> None:
    place = Place(tmp_path / "place", data, detector)
    process = place.start(COMMANDS["train"][0](place))
    victim = when(place, process, "epoch   1/")
    room = victim.memory_info().vms + 2**20
    victim.rlimit(psutil.RLIMIT_AS, (room, room))
    assert process.wait(timeout=300) != 0
    run = newest(place, "train")
    assert run
    _, go_on = COMMANDS["train"]
    assert place.start(go_on(place)).wait() == 0, said(place)
    assert differences(wanted("train"), signature(place)) == []


def test_a_clock_that_jumps(
    tmp_path: Path, data: Path, detector: Path, wanted: Callable[[str], dict[str, Any]]
) -> None:
    """An hour back, and a year ahead, in the middle of a training."""
    place = Place(tmp_path / "place", data, detector)
    jumping = (
        "import sys, time; true, began = time.time, time.monotonic()\n"
        "def jumped():\n"
        "    number = int((time.monotonic() - began) * 2) % 3\n"
        "    return true() + (0, -3600, 31_536_000)[number]\n"
        "time.time = jumped\n"
        "from synthdetect.cli import main\n"
        f"sys.exit(main({COMMANDS['train'][0](place)!r}))\n"
    )

    done = subprocess.run(
        [sys.executable, "-c", jumping], cwd=place.folder, env=place.environment,
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert differences(wanted("train"), signature(place)) == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("command", ["train", "cv", "predict"])
def test_a_signal_ends_runs_truthfully(command: str, number: int, tmp_path: Path) -> None:
    outcome = torment(command, kills=2, seed=3, folder=tmp_path, number=number)
    assert outcome.faults == []

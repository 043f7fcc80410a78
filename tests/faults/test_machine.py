"""What a machine does to a command, but for killing it: and what is left is gone on with."""

import contextlib
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.conftest import copy_store
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


def ended(place: Place, command: str, process: "subprocess.Popen[bytes]", reason: str) -> None:
    """It broke for that reason, says so, and leaves nothing that looks alive or half written."""
    assert process.wait(timeout=600) == 1, said(place)
    assert reason in said(place)
    assert "Traceback" not in said(place)
    run = newest(place, command)
    assert run
    assert run.info.status == "FAILED"
    assert not [run for run in place.runs() if run.info.status == "RUNNING"]
    assert not list(place.folder.rglob(".*.tmp"))


def require_same(place: Place, command: str, wanted: dict[str, Any]) -> None:
    """Gone on with, it comes to what it would have come to."""
    _, go_on = COMMANDS[command]
    assert place.start(go_on(place)).wait() == 0, said(place)
    assert differences(wanted, signature(place)) == []


class Disk:
    """A file system of its own, where a command keeps its files."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self.folder = folder
        try:
            self._mount("-t", "tmpfs", "-o", "size=1g", "tmpfs")
        except (OSError, subprocess.CalledProcessError):
            pytest.skip("only root may mount a disk, and not in every container")

    def size(self, size: str) -> None:
        """Make it larger or smaller."""
        self._mount("-o", f"remount,rw,size={size}")

    def make_read_only(self, process: "subprocess.Popen[bytes]") -> None:
        """At a moment at which the process has no file on it open."""
        for _ in range(1000):
            process.send_signal(signal.SIGSTOP)
            with contextlib.suppress(subprocess.CalledProcessError):
                self._mount("-o", "remount,ro")
                process.send_signal(signal.SIGCONT)
                return
            process.send_signal(signal.SIGCONT)
            time.sleep(0.01)
        raise AssertionError("there is always a file open")

    def remove(self) -> None:
        """Take it away."""
        subprocess.run(["umount", "--lazy", self.folder], check=True)

    def _mount(self, *arguments: str) -> None:
        subprocess.run(["mount", *arguments, self.folder], check=True, capture_output=True)


_OFTEN = ("train", "predict")  # the others train as `train` does, and take much longer


@pytest.fixture(
    params=[
        pytest.param(name, marks=() if name in _OFTEN else pytest.mark.thorough)
        for name in COMMANDS
    ]
)
def command(request: pytest.FixtureRequest) -> str:
    """Each of them."""
    return str(request.param)


@pytest.fixture
def place(tmp_path: Path, data: Path, detector: Path, empty_store: Path) -> Place:
    place = Place(tmp_path / "place", data, detector)
    copy_store(empty_store, place.folder)
    return place


@pytest.fixture
def disk(place: Place, command: str) -> Iterator[Disk]:
    made = Disk(place.folder / ("scores" if command == "predict" else "runs"))
    yield made
    made.remove()


Wanted = Callable[[str], dict[str, Any]]


def test_a_full_disk(command: str, place: Place, disk: Disk, wanted: Wanted) -> None:
    disk.size("12k" if command == "predict" else "8m")  # for a page of scores, and no checkpoint
    ended(place, command, place.start(COMMANDS[command][0](place)), "No space left on device")
    disk.size("1g")
    require_same(place, command, wanted(command))


def test_an_output_that_becomes_read_only(
    command: str, place: Place, disk: Disk, wanted: Wanted
) -> None:
    process = place.start(COMMANDS[command][0](place))
    begun = ".partial-*.csv" if command == "predict" else "*.safetensors"
    while not list(disk.folder.rglob(begun)):
        assert process.poll() is None, said(place)
        time.sleep(0.001)
    disk.make_read_only(process)
    ended(place, command, process, "Read-only file system")
    disk.size("1g")
    require_same(place, command, wanted(command))


def test_a_data_worker_that_is_killed(command: str, place: Place, wanted: Wanted) -> None:
    process = place.start([*COMMANDS[command][0](place), "--workers=1"])
    _worker(process).kill()
    ended(place, command, process, "DataLoader worker")
    require_same(place, command, wanted(command))


def _worker(process: "subprocess.Popen[bytes]") -> psutil.Process:
    while True:
        assert process.poll() is None
        with contextlib.suppress(psutil.NoSuchProcess):
            for child in psutil.Process(process.pid).children(recursive=True):
                if child.name().startswith("pt_data_worker"):
                    return child
        time.sleep(0.001)


def test_a_memory_limit(command: str, place: Place, wanted: Wanted) -> None:
    # A prediction's few images fit in memory that it has kept; the stack of a thread does not.
    further = ["--workers=1"] if command == "predict" else []
    process = place.start([*COMMANDS[command][0](place), *further])
    victim = when(place, process, " model(s)" if command == "predict" else "epoch   1/")
    room = victim.memory_info().vms + 2**20
    victim.rlimit(psutil.RLIMIT_AS, (room, room))
    assert process.wait(timeout=600) != 0
    require_same(place, command, wanted(command))


def test_a_clock_that_jumps(command: str, place: Place, wanted: Wanted) -> None:
    """An hour back, and a year ahead, in the middle of it."""
    arguments = COMMANDS[command][0](place)
    jumping = (
        "import runpy, sys, time; true, began = time.time, time.monotonic()\n"
        "def jumped():\n"
        "    number = int((time.monotonic() - began) * 2) % 3\n"
        "    return true() + (0, -3600, 31_536_000)[number]\n"
        "time.time = jumped\n"
        f"sys.argv = {['', *arguments]!r}\n"
        f"runpy.run_module({place.module(arguments)!r}, run_name='__main__')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", jumping], cwd=place.folder, env=place.environment,
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert differences(wanted(command), signature(place)) == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_runs_truthfully(command: str, number: int, tmp_path: Path) -> None:
    outcome = torment(command, kills=2, seed=3, folder=tmp_path, number=number)
    assert outcome.faults == []

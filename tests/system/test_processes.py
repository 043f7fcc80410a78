"""Tests of telling running processes from ended ones and from those of other machines."""

import socket
import subprocess
import sys
import time
from collections.abc import Iterator

import psutil
import pytest

from synthdetect.system.processes import is_another_alive, is_gone, this_process


def identified(number: int) -> str:
    process = psutil.Process(number)
    return f"{socket.gethostname()} {number} {process.create_time() - psutil.boot_time():.2f}"


@pytest.fixture
def other() -> Iterator["subprocess.Popen[bytes]"]:
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    yield process
    process.kill()
    process.wait()


def test_this_process_is_running() -> None:
    assert not is_gone(this_process())
    assert not is_another_alive(this_process())
    assert this_process() == this_process()


def test_another_process_is_alive_until_it_ends_or_is_a_zombie(
    other: "subprocess.Popen[bytes]",
) -> None:
    text = identified(other.pid)
    assert (is_gone(text), is_another_alive(text)) == (False, True)
    other.kill()
    while psutil.Process(other.pid).status() != psutil.STATUS_ZOMBIE:
        time.sleep(0.01)
    assert (is_gone(text), is_another_alive(text)) == (True, False)
    other.wait()
    assert is_gone(text)


def test_a_process_with_the_same_id_but_another_start_is_another() -> None:
    host, number, start = this_process().split(" ")
    assert is_gone(f"{host} {number} {float(start) - 60:.2f}")


def test_setting_the_system_clock_has_no_effect(monkeypatch: pytest.MonkeyPatch) -> None:
    before, boot = this_process(), psutil.boot_time()
    monkeypatch.setattr("psutil._psplatform.boot_time", lambda: boot + 7200)
    assert psutil.boot_time() == boot + 7200
    assert this_process() == before
    assert not is_gone(before)


@pytest.mark.parametrize(
    "text", ["", "x", "elsewhere 1 1.0", "a b c d", f"{socket.gethostname()} one 1.0"]
)
def test_text_that_identifies_no_process_of_this_machine_is_not_gone(text: str) -> None:
    assert not is_gone(text)

"""Tests of atomic writes (after an exception and after SIGKILL), the cache folder and hashes."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from synthdetect.system.files import (
    cache_folder,
    file_sha256,
    replace_atomically,
    short_hash,
    write_to_cache,
)


def test_the_new_content_replaces_the_old(tmp_path: Path) -> None:
    target = tmp_path / "table.csv"
    target.write_text("old")
    with replace_atomically(target) as temporary:
        temporary.write_text("new")
        assert target.read_text() == "old"
    assert target.read_text() == "new"
    assert os.listdir(tmp_path) == ["table.csv"]


def test_a_new_file_appears_only_when_it_is_complete(tmp_path: Path) -> None:
    target = tmp_path / "table.csv"
    with replace_atomically(target) as temporary:
        temporary.write_text("half")
        assert not target.exists()
    assert target.read_text() == "half"


def test_the_temporary_file_lies_beside_the_target(tmp_path: Path) -> None:
    """Renaming is atomic only within one file system."""
    with replace_atomically(tmp_path / "table.csv") as temporary:
        assert temporary.parent == tmp_path
        temporary.write_text("")


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
def test_an_exception_keeps_the_old_file_and_leaves_no_temporary_file(
    tmp_path: Path, error: type[BaseException]
) -> None:
    target = tmp_path / "table.csv"
    target.write_text("old")

    def write() -> None:
        with replace_atomically(target) as temporary:
            temporary.write_text("half of the n")
            raise error

    with pytest.raises(error):
        write()
    assert target.read_text() == "old"
    assert os.listdir(tmp_path) == ["table.csv"]


def test_a_body_that_writes_nothing_is_an_error_and_keeps_the_old_file(tmp_path: Path) -> None:
    target = tmp_path / "table.csv"
    target.write_text("old")
    with pytest.raises(FileNotFoundError), replace_atomically(target):
        pass
    assert target.read_text() == "old"


def test_sigkill_in_the_middle_keeps_the_old_file(tmp_path: Path) -> None:
    target = tmp_path / "table.csv"
    target.write_text("old")
    program = """
import sys, time
from pathlib import Path
from synthdetect.system.files import replace_atomically
with replace_atomically(Path(sys.argv[1])) as temporary:
    with temporary.open("w") as file:
        file.write("half of the n")
        file.flush()
        print("half", flush=True)
        time.sleep(60)
"""
    writer = subprocess.Popen(
        [sys.executable, "-c", program, str(target)], stdout=subprocess.PIPE, text=True
    )
    assert writer.stdout is not None
    with writer.stdout:
        assert writer.stdout.readline() == "half\n"
        writer.send_signal(signal.SIGKILL)
        assert writer.wait(timeout=30) == -signal.SIGKILL
    assert target.read_text() == "old"
    with replace_atomically(
        target
    ) as temporary:  # despite the temporary file of the killed process
        temporary.write_text("new")
    assert target.read_text() == "new"


def test_a_file_that_cannot_be_written_to_the_cache_is_ignored(tmp_path: Path) -> None:
    target = tmp_path / "cache" / "index" / "a.txt"
    write_to_cache(target, lambda file: file.write_text("found"))
    assert target.read_text() == "found"
    assert os.listdir(target.parent) == ["a.txt"]

    def full(file: Path) -> None:
        file.write_text("half of the n")
        raise OSError(28, "No space left on device")

    write_to_cache(target, full)
    assert target.read_text() == "found"
    assert os.listdir(target.parent) == ["a.txt"]
    write_to_cache(target / "below a file.txt", lambda file: file.write_text("found"))
    with pytest.raises(ValueError, match="not an error of the disk"):
        write_to_cache(target, lambda file: int("not an error of the disk"))


def test_the_cache_folder_follows_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SYNTHDETECT_CACHE", str(tmp_path / "here"))
    assert cache_folder() == tmp_path / "here"
    monkeypatch.delenv("SYNTHDETECT_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_folder() == tmp_path / "xdg" / "synthdetect"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_folder() == tmp_path / ".cache" / "synthdetect"


def test_hashes_are_sha256(tmp_path: Path) -> None:
    (tmp_path / "abc").write_bytes(b"abc")
    assert file_sha256(tmp_path / "abc") == (
        "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    )
    assert short_hash("abc") == "ba7816bf8f01cfea"

"""Freed memory stays with the process, on Linux with glibc."""

import subprocess
import sys

from synthdetect.system.allocation import keep_freed_memory

FAULTS = """
import resource
from synthdetect.system.allocation import keep_freed_memory
assert not {kept} or keep_freed_memory()
for _ in range(3):
    bytearray(48 * 2**20)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(20):
    bytearray(48 * 2**20)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(*, kept: bool) -> int:
    """Pages that the kernel gives for the same large allocation, again and again."""
    command = [sys.executable, "-c", FAULTS.format(kept=kept)]
    return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def test_memory_is_not_fetched_again() -> None:
    if not sys.platform.startswith("linux"):
        assert not keep_freed_memory()
        return
    assert faults(kept=True) < 1000 < faults(kept=False)

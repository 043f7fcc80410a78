"""What is called apart leaves no threads behind."""

import subprocess
import sys

import pytest
import torch

from synthdetect.system.threads import apart

COMPUTE = """
import time
import psutil, torch
from synthdetect.system.threads import apart

def compute():
    return torch.randn(512, 512).mm(torch.randn(512, 512)).sum().add(torch.randn(10**6).exp().sum())

torch.set_num_threads(3)
before = psutil.Process().num_threads()
{call}
for _ in range(40):  # threads end a moment after they are told to
    left = psutil.Process().num_threads() - before
    if not left:
        break
    time.sleep(0.05)
print(left)
"""


def left(call: str) -> int:
    """Threads that a call leaves behind."""
    command = [sys.executable, "-c", COMPUTE.format(call=call)]
    return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


@pytest.mark.skipif(not torch.backends.openmp.is_available(), reason="torch has no OpenMP")
def test_no_threads_are_left_behind() -> None:
    assert left("apart(compute)") == 0 < left("compute()")


def test_what_is_raised_is_raised() -> None:
    with pytest.raises(ZeroDivisionError):
        apart(lambda: 1 // 0)
    assert apart(divmod, 7, 2) == (3, 1)

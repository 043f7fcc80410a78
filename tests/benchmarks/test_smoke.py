"""Every benchmark runs on the smallest input; its results are not judged."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.__main__ import COMMANDS
from tests.conftest import ROOT

SCRIPTS = sorted(
    path.stem
    for path in (ROOT / "benchmarks").glob("*.py")
    if path.stem not in ("__init__", "__main__", "common", "summary")
)


def test_one_command_measures_everything() -> None:
    assert {line.split()[0] for line in COMMANDS} == set(SCRIPTS)


@pytest.mark.long
@pytest.mark.thorough
@pytest.mark.parametrize("script", SCRIPTS)
def test_smoke(workspace: Path, script: str) -> None:
    command = [sys.executable, "-m", f"benchmarks.{script}", "--smoke", "--output", str(workspace)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    result = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stderr
    (file,) = workspace.glob("*.json")
    written = json.loads(file.read_text())
    assert written["command"] == f"python -m benchmarks.{script} --smoke"
    assert all(row["ratio"] > 0 for row in written["rows"])
    assert written["machine"]["cores"] >= 1

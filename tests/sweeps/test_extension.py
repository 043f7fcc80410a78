"""The sweep as an installed extension of the `synthdetect` program."""

import os
import subprocess
import sys
import tomllib
from pathlib import Path
from pkgutil import resolve_name

import pytest

from sweeps.extension import EXTENSION
from synthdetect.commands import extensions
from synthdetect.runs.kinds import RUN_KINDS
from tests.conftest import ROOT

ENTRY_POINTS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["entry-points"]
HEAVY = ("torch", "mlflow", "optuna", "numpy", "pandas")


@pytest.fixture
def installed(tmp_path: Path) -> dict[str, str]:
    """An environment in which a package with this project's entry points is installed."""
    folder = tmp_path / "installed-1.0.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: installed\nVersion: 1.0\n")
    lines = [f"{name} = {value}" for name, value in ENTRY_POINTS[extensions.GROUP].items()]
    (folder / "entry_points.txt").write_text("\n".join([f"[{extensions.GROUP}]", *lines, ""]))
    return {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(tmp_path)])}


def synthdetect(environment: dict[str, str], *arguments: str) -> "subprocess.CompletedProcess[str]":
    """Run the program; its last line on stdout has the names of the modules it imported."""
    program = (
        "import sys\n"
        "from synthdetect.cli import main\n"
        "try:\n"
        "    status = main(sys.argv[1:])\n"
        "finally:\n"
        "    print(*sys.modules)\n"
        "sys.exit(status)\n"
    )
    return subprocess.run(
        [sys.executable, "-c", program, *arguments],
        env=environment, capture_output=True, text=True, timeout=60,
    )  # fmt: skip


def test_the_program_lists_the_sweep_and_imports_nothing_heavy(installed: dict[str, str]) -> None:
    result = synthdetect(installed, "--help")
    assert result.returncode == 0, result.stderr
    *lines, modules = result.stdout.splitlines()
    assert {"train", "sweep"} <= {line.split()[0] for line in lines if line.startswith("    ")}
    assert set(modules.split()) & {*HEAVY, "sweeps.study"} == set()


def test_the_program_runs_the_sweep(installed: dict[str, str]) -> None:
    assert "--tuning-share" in synthdetect(installed, "sweep", "--help-all").stdout
    result = synthdetect(installed, "sweep", "--strategies", "magic")
    assert result.returncode == 2
    assert "--strategies" in result.stderr


def test_the_programs_own_commands_import_no_extension(installed: dict[str, str]) -> None:
    result = synthdetect(installed, "train", "--help")
    assert result.returncode == 0, result.stderr
    assert "sweeps" not in result.stdout.splitlines()[-1].split()


def test_the_kinds_of_runs_are_no_kinds_of_the_program() -> None:
    assert not set(EXTENSION.run_kinds) & set(RUN_KINDS)


def test_the_functions_of_the_extension_exist() -> None:
    functions = [command.function for command in EXTENSION.commands.values()]
    reruns = [kind.rerun for kind in EXTENSION.run_kinds.values() if kind.rerun]
    for name in (*functions, *reruns):
        assert callable(resolve_name(name))

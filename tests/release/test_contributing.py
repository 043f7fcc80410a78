"""The worked examples of `CONTRIBUTING.md` work and cost what it says."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT

TEXT = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
EXAMPLES = {
    title.lower().replace(" ", "-"): diff
    for title, diff in re.findall(
        r"^### ([^\n]+)\n(?:(?!^#).)*?^```diff\n(.+?)^```", TEXT, re.MULTILINE | re.DOTALL
    )
}
"""The change of each example, by the anchor of its heading."""

TESTED_IN = {
    "tests/commands/test_project.py": ["the_file_is_what_the_commands_say"],
    "tests/config/test_options.py": ["names_that_an_option_accepts"],
    "tests/datasets/test_layouts.py": ["our_labs"],
    "tests/explanation/test_gradcam.py": ["shufflenet"],
    "tests/models/test_architectures.py": ["shufflenet"],
    "tests/sweeps/test_strategies.py": ["clipping"],
    "tests/training/test_losses.py": ["poly1"],
}
"""The suites that test the additions, and words in the names of those tests."""


def run(folder: Path, *command: str, given: str = "") -> str:
    """Run a command in a folder, whose code it uses, and return what it printed."""
    done = subprocess.run(
        command,
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(folder)},
        input=given,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def cost(diff: str) -> tuple[int, int, int]:
    """Count the files that a change touches, the lines that it adds to them, and those of tests."""
    lines: dict[str, int] = {}
    for line in diff.splitlines():
        if line.startswith("+++ "):
            file = line.removeprefix("+++ b/")
            lines[file] = 0
        elif line.startswith("+"):
            lines[file] += 1
    tests = {file for file in lines if file.startswith("tests/")}
    return (
        len(lines) - len(tests),
        sum(n for file, n in lines.items() if file not in tests),
        sum(lines[file] for file in tests),
    )


def test_the_examples_cost_what_the_table_says() -> None:
    rows = re.findall(r"^\| \[[^]]+\]\(#([a-z-]+)\).* \| (\d+) \| (\d+) \| (\d+) \|$", TEXT, re.M)
    stated = {name: tuple(map(int, numbers)) for name, *numbers in rows}
    assert list(stated) == ["a-loss", "an-architecture", "a-strategy", "a-folder-layout"]
    assert {name: cost(diff) for name, diff in EXAMPLES.items()} == stated


@pytest.fixture(scope="module")
def changed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the code to which all examples were applied."""
    folder = tmp_path_factory.mktemp("contributing")
    for name in ("benchmarks", "sweeps", "synthdetect", "tests"):
        left_out = shutil.ignore_patterns("sample", "results", "__pycache__")
        shutil.copytree(ROOT / name, folder / name, ignore=left_out)
    for name in ("MLproject", "conda.yaml", "pyproject.toml"):
        shutil.copy(ROOT / name, folder)
    for diff in EXAMPLES.values():
        run(folder, "git", "apply", "-", given=diff)
    project = run(folder, sys.executable, "-m", "sweeps.project")
    assert "poly_epsilon" in project
    (folder / "MLproject").write_text(project, encoding="utf-8")
    return folder


def test_the_additions_pass_the_suites(changed: Path) -> None:
    words = sorted({word for words in TESTED_IN.values() for word in words})
    printed = run(
        changed, sys.executable, "-m", "pytest", "-q", "-n", "0", "-rA", "-p", "no:cacheprovider",
        "-k", " or ".join(words), *TESTED_IN,
    )  # fmt: skip
    passed = [line for line in printed.splitlines() if line.startswith("PASSED")]
    for file, words in TESTED_IN.items():
        for word in words:
            assert [line for line in passed if file in line and word in line], (file, word)


def test_the_additions_keep_to_the_style(changed: Path) -> None:
    files = re.findall(r"^\+\+\+ b/(.+)$", "".join(EXAMPLES.values()), re.MULTILINE)
    run(changed, sys.executable, "-m", "ruff", "check", *files)
    run(changed, sys.executable, "-m", "ruff", "format", "--check", *files)

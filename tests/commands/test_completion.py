"""Completion in a real bash, by the script that the program prints."""

import subprocess
import time
from pathlib import Path

import pytest

from synthdetect import cli

pytestmark = pytest.mark.usefixtures("script")

_ASK = """
source "$1"
COMP_WORDS=({words}) COMP_CWORD={number} COMP_LINE="{line}" COMP_POINT={point}
{function}
printf '%s\\n' "${{COMPREPLY[@]}}"
"""


@pytest.fixture(scope="module")
def script(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("completion") / "synthdetect.bash"
    with pytest.MonkeyPatch.context() as patch, file.open("w", encoding="utf-8") as out:
        patch.setattr("sys.stdout", out)
        assert cli.main(["completion", "bash"]) == 0
    return file


def complete(script: Path, *words: str) -> list[str]:
    """Return what bash offers for the last of some words."""
    all_words, line = ("synthdetect", *words), " ".join(("synthdetect", *words))
    quoted = " ".join(f"'{word}'" for word in all_words)
    named = subprocess.run(
        ["bash", "-c", f"source {script}; complete -p synthdetect"],
        capture_output=True, text=True, check=True,
    ).stdout.split()  # fmt: skip
    function = named[named.index("-F") + 1]
    asked = _ASK.format(
        words=quoted, number=len(words), line=line, point=len(line), function=function
    )
    found = subprocess.run(
        ["bash", "-c", asked, "bash", str(script)], capture_output=True, text=True, check=True
    )
    return found.stdout.split()


def test_commands_are_completed_those_of_extensions_too(script: Path) -> None:
    assert complete(script, "tra") == ["train"]
    assert complete(script, "swe") == ["sweep"]
    assert {"predict", "promote"} <= set(complete(script, "pr"))


def test_options_are_completed_also_those_that_help_leaves_out(script: Path) -> None:
    assert complete(script, "train", "--focal") == ["--focal-gamma"]
    assert complete(script, "predict", "--quie") == ["--quiet"]


@pytest.mark.parametrize(
    ("words", "found"),
    [
        (("train", "--optimizer", "look"), ["lookahead"]),
        (("train", "--pairs", ""), ["true", "false"]),
        (("train", "--precision", "bf"), ["bf16"]),
        (("list", "architec"), ["architectures"]),
        (("completion", "z"), ["zsh"]),
    ],
)
def test_values_are_completed(script: Path, words: tuple[str, ...], found: list[str]) -> None:
    assert complete(script, *words) == found


def test_files_are_completed_where_an_option_takes_one(script: Path, tmp_path: Path) -> None:
    (tmp_path / "manifest.csv").touch()
    assert complete(script, "train", "--data", f"{tmp_path}/mani") == [f"{tmp_path}/manifest.csv"]


def test_completing_starts_no_python(script: Path) -> None:
    began = time.perf_counter()
    complete(script, "train", "--opt")
    assert time.perf_counter() - began < 2
    assert "python" not in script.read_text()


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_other_shells_have_scripts_too(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["completion", shell]) == 0
    script = capsys.readouterr().out
    assert "focal-gamma" in script
    assert "lookahead" in script

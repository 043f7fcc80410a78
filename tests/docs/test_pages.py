"""README and guides name only options, commands and files that exist.

Links between the pages of `docs` are checked by the documentation's build.
"""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from sweeps.__main__ import COMMANDS as SWEEP_COMMANDS
from synthdetect.cli import COMMANDS as OWN_COMMANDS

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"
RESULTS = (
    "evaluation.md",
    "performance.md",
    "reliability.md",
    "sweeps.md",
)  # by scripts, from runs
GUIDES = [page for page in sorted((ROOT / "docs").glob("*.md")) if page.name not in RESULTS]

COMMANDS = {**OWN_COMMANDS, **SWEEP_COMMANDS}
OPTIONS = {option for command in COMMANDS.values() for option in command.options.fields()}
FLAGS = {"help", "help_all", "json", "quiet"}  # of every command, beside its options
OF_OTHER_PROGRAMS = {
    "backend_store_uri", "build", "dbname", "detach", "env_manager", "experiment_name", "format",
    "keep_going", "nnodes", "no_deps", "nproc_per_node", "older_than", "rdzv_backend",
    "rdzv_endpoint", "require_hashes", "rm", "username", "version",
}  # fmt: skip

_BLOCK = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)
_SPAN = re.compile(r"(`+)(.+?)\1", re.DOTALL)
_COMMAND = re.compile(r"^(?:synthdetect|python -m sweeps|mlflow run \. -e) ([a-z][a-z-]*)(?=\s|$)")
_OPTION = re.compile(r"(?:(?<![\w-])--([a-z][\w-]*)|-P (\w+)=)")
_LINK = re.compile(r"\]\(([^)#\s]+)[^)]*\)")


def code(text: str) -> Iterator[str]:
    """The lines of fenced blocks, continued ones joined, and the spans between backticks."""
    for block in _BLOCK.findall(text):
        yield from block.replace("\\\n", " ").splitlines()[1:-1]
    for _, span in _SPAN.findall(_BLOCK.sub("", text)):
        yield " ".join(span.split())


def unknown(line: str) -> set[str]:
    """The options in a line of code that its command, or else any command, does not have."""
    command = _COMMAND.search(line)
    known = set(COMMANDS[command[1]].options.fields()) if command else OPTIONS
    named = {(long or short).replace("-", "_") for long, short in _OPTION.findall(line)}
    return named - known - FLAGS - OF_OTHER_PROGRAMS


@pytest.mark.parametrize("page", [README, *GUIDES], ids=lambda page: page.name)
def test_a_page_names_only_commands_and_options_that_exist(page: Path) -> None:
    lines = list(code(page.read_text(encoding="utf-8")))
    commands = {match[1] for line in lines if (match := _COMMAND.search(line))}
    assert commands <= set(COMMANDS)
    assert {line: found for line in lines if (found := unknown(line))} == {}


def test_an_option_that_does_not_exist_is_found() -> None:
    text = "`--nonsense 3`\n```sh\nmlflow run . -e predict \\\n  -P lr=1 -P data=x\n```\n`--lr 1`"
    assert [found for line in code(text) if (found := unknown(line))] == [{"lr"}, {"nonsense"}]


@pytest.mark.parametrize("name", ["train", "test"])
def test_readme_has_the_commands_that_are_run_as_they_stand(name: str) -> None:
    found = re.findall(
        rf"<!-- command: {name} -->\n```sh\n(.+?)```", README.read_text(encoding="utf-8"), re.DOTALL
    )
    assert len(found) == 1


def test_readme_links_to_files_that_exist() -> None:
    links = [
        link for link in _LINK.findall(README.read_text(encoding="utf-8")) if "://" not in link
    ]
    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []


def test_readme_shows_the_packages_that_exist() -> None:
    text = README.read_text(encoding="utf-8")
    tree = next(block for block in _BLOCK.findall(text) if "MLproject" in block)
    folder, shown = "", set()
    for line in tree.splitlines()[1:-1]:
        names = [name.strip() for name in re.split(r"\s{2,}", line.strip())[0].split(",")]
        if not line.startswith(" "):
            folder = names[0] if names[0].endswith("/") else ""
        shown |= {names[0]} if names[0] == folder else {folder + name for name in names}
    assert {path for path in shown if not (ROOT / path).exists()} == set()
    packages = {
        f"synthdetect/{file.parent.name}/" for file in ROOT.glob("synthdetect/*/__init__.py")
    }
    assert packages <= shown

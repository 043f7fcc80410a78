"""Installed packages add commands to the program, and cannot break or replace its own."""

from importlib.metadata import EntryPoint

import pytest

from synthdetect import cli
from synthdetect.commands import extensions
from synthdetect.commands.command import Command
from synthdetect.commands.extensions import Extension
from synthdetect.commands.options import ListOptions

COMMAND = Command(ListOptions, "module:function", "an added command", positional=("what",))
ADDING = Extension({"added": COMMAND, "list": COMMAND}, {})


def install(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    """Let the program find one installed extension."""
    entry = EntryPoint("name", value, extensions.GROUP)
    monkeypatch.setattr(extensions, "entry_points", lambda group: [entry])


def test_a_command_is_added_but_none_replaced(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    install(monkeypatch, f"{__name__}:ADDING")
    with pytest.raises(SystemExit):
        cli.main(["--help"])
    lines = capsys.readouterr().out.splitlines()
    (added,) = (line for line in lines if line.split()[:1] == ["added"])
    assert COMMAND.help in added
    assert cli.main(["list", "recipes"]) == 0
    assert "baseline" in capsys.readouterr().out


def test_an_extension_that_cannot_be_loaded_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    install(monkeypatch, "no_such_module:EXTENSION")
    assert cli.main(["added"]) == 2
    assert "no_such_module:EXTENSION" in capsys.readouterr().err
    assert cli.main(["list", "recipes"]) == 0

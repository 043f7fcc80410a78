"""The command that a run records does the same again, whatever recipe its options go against."""

import shlex
from typing import Any

import pytest

from synthdetect.cli import COMMANDS, parse
from synthdetect.commands.train import tags


@pytest.mark.parametrize("command", ["train", "cv"])
@pytest.mark.parametrize(
    "given",
    [
        {},
        {"recipe": "open"},
        {"recipe": "open", "arch": "resnet18"},
        {"recipe": "open", "finetune": "0", "jitter": "0.1", "rotation": "0"},
        {"recipe": "constrained", "per_category": "0"},
        {"arch": "resnet50", "data": "a folder"},
    ],
)
def test_the_recorded_command_means_the_same_options(command: str, given: dict[str, Any]) -> None:
    options = COMMANDS[command].options.resolve(given)
    recorded = shlex.split(tags(command, options)["synthdetect.command"])
    name, again = parse(recorded[1:], "synthdetect", COMMANDS)
    assert COMMANDS[name].options.resolve(again) == options
    assert len(again) <= len(given)

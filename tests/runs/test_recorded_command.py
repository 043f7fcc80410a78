"""Tests of the recorded command: it repeats the run, whichever recipe its options override."""

import shlex
from typing import Any

import pytest

from synthdetect.commands.catalogue import COMMANDS
from synthdetect.commands.parser import parse
from synthdetect.runs.messages import command_tags


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
    recorded = shlex.split(command_tags(command, options)["synthdetect.command"])
    name, repeated, *_ = parse(recorded[1:], "synthdetect", COMMANDS)
    assert COMMANDS[name].options.resolve(repeated) == options
    assert len(repeated) <= len(given)

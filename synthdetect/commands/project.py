"""The text of `MLproject`, made from commands; `python -m sweeps.project > MLproject` writes it.

A parameter that some recipe sets has the default `recipe`, which means "what the recipe says";
every other one has the option's own default.
"""

from collections.abc import Mapping

from synthdetect.cli import COMMANDS, project_default
from synthdetect.commands.command import Command

_HEAD = """\
# Written by: python -m sweeps.project > MLproject
# The parameters are the options of the command line; see: synthdetect train --help
name: synthdetect

conda_env: conda.yaml

entry_points:
"""


def render(further: Mapping[str, Mapping[str, Command]]) -> str:
    """The text of `MLproject`.

    Args:
        further: commands of other modules that are started as `python -m MODULE`, by module; one
            of the same name takes the place of this package's.
    """
    modules = {"synthdetect": COMMANDS, **further}
    entries = {
        name: (module, command)
        for module, commands in modules.items()
        for name, command in commands.items()
        if command.project
    }
    text = _HEAD + _entry("main", "synthdetect", "train", COMMANDS["train"])
    for name, (module, command) in entries.items():
        text += _entry(name, module, name, command)
    return text


def _entry(entry: str, module: str, name: str, command: Command) -> str:
    lines = [f"  {entry}:", "    parameters:"]
    arguments = []
    for option in command.options.sections():
        lines.append(
            f'      {option}: {{type: string, default: "{project_default(command, option)}"}}'
        )
        arguments.append(f"--{option}={{{option}}}")
    joined = "\n        ".join([f"python -m {module}", name, *arguments])
    return "\n".join([*lines, "    command: >-", f"        {joined}", ""])

"""The text of `MLproject`, made from commands; `python -m sweeps.project > MLproject` writes it.

A parameter that some recipe sets has the default `recipe`, which stands for the value of the
recipe; every other one has the default of its option.
"""

from collections.abc import Mapping

from synthdetect.commands.catalogue import COMMANDS
from synthdetect.commands.command import Command
from synthdetect.config.options import AS_RECIPE

_HEAD = """\
# Written by: python -m sweeps.project > MLproject
# The parameters are the options of the command line; see: synthdetect train --help
name: synthdetect

conda_env: conda.yaml

entry_points:
"""


def render(further: Mapping[str, Mapping[str, Command]]) -> str:
    """Return the text of `MLproject`.

    Args:
        further: Commands of other modules, by the module that `python -m MODULE` starts. A command
            replaces one of this package with the same name.
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
        lines.append(f'      {option}: {{type: string, default: "{_default(command, option)}"}}')
        arguments.append(f"--{option}={{{option}}}")
    joined = "\n        ".join([f"python -m {module}", name, *arguments])
    return "\n".join([*lines, "    command: >-", f"        {joined}", ""])


def _default(command: Command, name: str) -> str:
    """Return the default of a parameter in `MLproject`, which means the same as not giving it."""
    if any(name in differences for differences in command.options.recipes.values()):
        return AS_RECIPE
    default = command.options.fields()[name].default
    return ",".join(default) if isinstance(default, tuple) else str(default)

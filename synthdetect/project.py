"""The `MLproject` file, written from the commands: `python -m synthdetect.project > MLproject`.

A parameter that some recipe sets has the default `recipe`, which means "what the recipe says";
every other one has the option's own default.
"""

from synthdetect.cli import COMMANDS, Command, project_default

_HEAD = """\
# Written by: python -m synthdetect.project > MLproject
# The parameters are the options of the command line; see: synthdetect train --help
name: synthdetect

conda_env: conda.yaml

entry_points:
"""


def render() -> str:
    """The text of `MLproject`."""
    entries = {name: command for name, command in COMMANDS.items() if command.project}
    text = _HEAD + _entry("main", "train", COMMANDS["train"])
    return text + "".join(_entry(name, name, command) for name, command in entries.items())


def _entry(entry: str, name: str, command: Command) -> str:
    lines = [f"  {entry}:", "    parameters:"]
    arguments = []
    for option in command.options.sections():
        lines.append(
            f'      {option}: {{type: string, default: "{project_default(command, option)}"}}'
        )
        arguments.append(f"--{option}={{{option}}}")
    joined = "\n        ".join(["python -m synthdetect", name, *arguments])
    return "\n".join([*lines, "    command: >-", f"        {joined}", ""])


if __name__ == "__main__":
    print(render(), end="")

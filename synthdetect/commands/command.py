"""A command of the command line, as data."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from synthdetect.config.options import Options

FEW = 12
"""Options of a command up to which `--help` shows all of them."""


@dataclass(frozen=True)
class Command:
    """A command of the command line.

    Attributes:
        options: Class whose fields are the command's options.
        function: Function that runs the command, as `module:name`. It takes the options and returns
            the result that `--json` prints, as a mapping of names to what JSON knows. Its module is
            imported only when the command runs.
        help: One line for the list of commands.
        positional: Fields that are given by position.
        short: One-letter options, by field.
        project: Whether `MLproject` has an entry point for the command.
        tracked: Whether the command needs the tracking store.
        result: Whether the command ends with a result; a server does not.
    """

    options: type[Options]
    function: str
    help: str
    positional: tuple[str, ...] = ()
    short: Mapping[str, str] = field(default_factory=dict)
    project: bool = False
    tracked: bool = True
    result: bool = True

"""Extensions: installed packages that add commands and kinds of runs to the program.

A package declares its extension as an entry point:

    [project.entry-points."synthdetect.extensions"]
    NAME = "package.module:EXTENSION"

The module is imported for the program's help, so it must not import anything heavy. The functions
that an extension names are imported only when they are called.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import entry_points

from synthdetect.commands.command import Command
from synthdetect.runs.kinds import RunKind
from synthdetect.system.errors import UserError

GROUP = "synthdetect.extensions"
"""Group of entry points that declare an extension."""


@dataclass(frozen=True)
class Extension:
    """What a package adds to the program.

    Attributes:
        commands: Commands by name. A command of the program itself cannot be replaced.
        run_kinds: Kinds of runs by name, the tag `synthdetect.kind` of the runs.
    """

    commands: Mapping[str, Command]
    run_kinds: Mapping[str, RunKind]


def with_extensions(commands: Mapping[str, Command]) -> dict[str, Command]:
    """Return the commands of the program with those of the installed extensions."""
    found = dict(commands)
    for extension in installed_extensions():
        found |= {n: command for n, command in extension.commands.items() if n not in found}
    return found


def installed_extensions() -> list[Extension]:
    """Load the extensions of all installed packages.

    Raises:
        UserError: If an extension cannot be imported.
    """
    found = []
    for entry in entry_points(group=GROUP):
        try:
            found.append(entry.load())
        except Exception as error:  # importing another package may raise anything
            raise UserError(
                f"extension {entry.name!r} ({entry.value}) cannot be loaded: {error}. Repair or "
                "uninstall the package that declares it."
            ) from error
    return found

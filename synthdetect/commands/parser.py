"""The parser of the command line, built from the classes of options; it imports nothing heavy."""

import argparse
from collections.abc import Iterator, Mapping, Sequence
from itertools import zip_longest
from typing import Any, NamedTuple, NoReturn

from pydantic.fields import FieldInfo

from synthdetect import __version__
from synthdetect.commands.command import FEW, Command
from synthdetect.config.options import declared, option_name
from synthdetect.config.values import is_several, placeholder, remarks
from synthdetect.system.errors import UserError

HELP_ALL = "--help-all"

_BOOLEANS = frozenset(["true", "false", "1", "0", "yes", "no", "on", "off", "t", "f", "y", "n"])
"""The words that pydantic takes for true or false."""


class Parsed(NamedTuple):
    """What a command line says.

    Attributes:
        command: Name of the command.
        given: The given options as text by name.
        quiet: Whether only warnings and errors are printed.
        json: Whether the result is printed as JSON.
    """

    command: str
    given: dict[str, Any]
    quiet: bool
    json: bool


def parse(arguments: Sequence[str], program: str, commands: Mapping[str, Command]) -> Parsed:
    """Parse the arguments of a program.

    Raises:
        UserError: If there is an argument that is no option.
    """
    arguments = [_with_dashes(argument) for argument in arguments]
    called = next((argument for argument in arguments if argument in commands), "")
    if called:
        arguments = list(_with_values(arguments, commands[called]))
    parser = build_parser(program, commands, everything=HELP_ALL in arguments)
    known, unknown = parser.parse_known_args(arguments)
    given: dict[str, Any] = {
        option: ",".join(value) if isinstance(value, list) else value
        for option, value in vars(known).items()
    }
    name = given.pop("command")
    quiet, json = given.pop("quiet", False), given.pop("json", False)
    options = [argument for argument in unknown if argument.startswith("--")]
    if unknown and not options:
        raise UserError(f"unexpected argument {unknown[0]!r}. See: {program} {name} --help")
    for option in options:  # `resolve` reports them all, with suggestions
        given[option[2:].partition("=")[0]] = None
    return Parsed(name, given, quiet, json)


def build_parser(
    program: str, commands: Mapping[str, Command], *, everything: bool
) -> argparse.ArgumentParser:
    """Return the parser of a program.

    Args:
        program: Its name.
        commands: Its commands by name.
        everything: Whether the help of a command with many options shows all of them.
    """
    parser = _Parser(
        prog=program,
        description="Train, compare and serve detectors of AI-generated images.",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=__version__)
    subparsers = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, command in commands.items():
        sub = subparsers.add_parser(
            name, help=command.help, description=command.options.__doc__, allow_abbrev=False
        )
        shown = set(command.options.fields()) if everything else _common(command)
        hidden = len(command.options.fields()) - len(shown)
        if hidden:
            sub.epilog = f"{hidden} further options: {program} {name} {HELP_ALL}"
        _add_options(sub, command, shown)
        _add_flags(sub, command)
    return parser


class _Parser(argparse.ArgumentParser):
    """A parser whose errors are those of the program, which `--json` prints too."""

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message}. See: {self.prog} --help")


def _with_values(arguments: Sequence[str], command: Command) -> Iterator[str]:
    """Write `--option=true` for an option that is true or false and stands without a value."""
    flags = {option_name(n) for n, f in command.options.fields().items() if f.annotation is bool}
    for argument, following in zip_longest(arguments, arguments[1:], fillvalue=""):
        is_alone = argument in flags and following.lower() not in _BOOLEANS
        yield f"{argument}=true" if is_alone else argument


def _with_dashes(argument: str) -> str:
    """Return an option that is spelled with underscores, as `MLproject` does, with dashes."""
    name, equals, value = argument.partition("=")
    if name.startswith("--") and "-" not in name[2:]:
        name = name.replace("_", "-")
    return name + equals + value


def _common(command: Command) -> set[str]:
    """Return the options that `--help` shows: all, or of many the common ones."""
    fields = command.options.fields()
    if len(fields) <= FEW:
        return set(fields)
    return {n for n, field in fields.items() if n in command.positional or _is_common(field)}


def _is_common(field: FieldInfo) -> bool:
    return field.is_required() or bool(declared(field, "common", False))


def _add_flags(parser: argparse.ArgumentParser, command: Command) -> None:
    group = parser.add_argument_group("output")
    group.add_argument(
        "-q", "--quiet", action="store_true", help="Print warnings and errors only, on stderr."
    )
    if command.result:
        group.add_argument(
            "--json",
            action="store_true",
            help="Print the result as one JSON object on stdout, and everything else on stderr.",
        )
    group.add_argument(HELP_ALL, action="help", help="Show all options, and exit.")


def _add_options(parser: argparse.ArgumentParser, command: Command, shown: set[str]) -> None:
    """Add the options in their sections, those of `--help` first."""
    fields = command.options.fields()
    groups: dict[str, Any] = {}
    sections = command.options.sections()
    for name in sorted(sections, key=lambda name: not _is_common(fields[name])):
        info, section = fields[name], sections[name]
        text = (info.description or "").replace("%", "%%")
        if name in command.positional:
            one = None if info.is_required() else "?"
            parser.add_argument(
                name, help=text, nargs="*" if is_several(info) else one, default=argparse.SUPPRESS
            )
            if command.project:  # `mlflow run` passes every parameter by name
                parser.add_argument(
                    option_name(name), dest=name, help=argparse.SUPPRESS, default=argparse.SUPPRESS
                )
            continue
        group = groups.setdefault(section, parser.add_argument_group(section))
        shorts = [command.short[name]] if name in command.short else []
        notes = "; ".join(remarks(info)).replace("%", "%%")
        group.add_argument(
            *shorts, option_name(name), dest=name, default=argparse.SUPPRESS,
            metavar=placeholder(info), required=info.is_required(),
            help=(f"{text} ({notes})" if notes else text) if name in shown else argparse.SUPPRESS,
        )  # fmt: skip

"""The command line, built from the classes of options; `--help` imports nothing heavy."""

import argparse
import importlib
import os
import signal
import sys
import traceback
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

from synthdetect import __version__
from synthdetect.commands.catalogue import COMMANDS
from synthdetect.commands.command import Command
from synthdetect.commands.extensions import installed_extensions
from synthdetect.config.options import option_name
from synthdetect.system.errors import UserError
from synthdetect.system.redaction import without_secrets
from synthdetect.system.visible import visible

TRACEBACK = "SYNTHDETECT_TRACEBACK"
"""Environment variable; if it is set, an error prints its traceback."""


def main(
    arguments: Sequence[str] | None = None,
    *,
    program: str = "synthdetect",
    commands: Mapping[str, Command] | None = None,
) -> int:
    """Run a command.

    Args:
        arguments: of the command line; None takes the process's.
        program: its name in messages.
        commands: the program's commands by name; None selects `COMMANDS` and the commands of the
            installed extensions.

    Returns:
        0: done; 1: something broke; 2: what the user gave cannot be used; 130 and 143: interrupted.
    """
    os.environ.setdefault("PYTORCH_ENABLE_MPS_FALLBACK", "1")  # torch reads it when imported
    signal.signal(signal.SIGTERM, _terminate)
    try:
        given_arguments = sys.argv[1:] if arguments is None else arguments
        commands = _commands_for(given_arguments) if commands is None else commands
        name, given = parse(given_arguments, program, commands)
        command = commands[name]
        options = command.options.resolve(given)
        if command.tracked:
            importlib.import_module("synthdetect.tracking.store").require_store()
        module, _, function = command.function.partition(":")
        getattr(importlib.import_module(module), function)(options)
    except UserError as error:
        return _fail(str(error), 2)
    except Terminated:
        return _fail("terminated", 128 + signal.SIGTERM)
    except KeyboardInterrupt:
        return _fail("interrupted", 128 + signal.SIGINT)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception as error:
        return _fail(f"{type(error).__name__}: {error}", 1)
    return 0


def _commands_for(arguments: Sequence[str]) -> Mapping[str, Command]:
    """`COMMANDS`, with those of the installed extensions unless the arguments call one of them."""
    called = next((argument for argument in arguments if not argument.startswith("-")), "")
    if called in COMMANDS:
        return COMMANDS
    commands = dict(COMMANDS)
    for extension in installed_extensions():
        for name, command in extension.commands.items():
            commands.setdefault(name, command)
    return commands


class Terminated(KeyboardInterrupt):
    """SIGTERM was received; it ends a run like Ctrl-C."""


def _terminate(number: int, frame: object) -> NoReturn:
    raise Terminated


def _fail(message: str, status: int) -> int:
    if os.environ.get(TRACEBACK):
        print(without_secrets(traceback.format_exc()), file=sys.stderr)
    hint = "" if status in (2, 130, 143) else f"\n(set {TRACEBACK}=1 to see where)"
    print(f"synthdetect: {visible(without_secrets(message))}{hint}", file=sys.stderr)
    return status


def parse(
    arguments: Sequence[str], program: str, commands: Mapping[str, Command]
) -> tuple[str, dict[str, Any]]:
    """Return the name of the command, and the given options as text by name."""
    parser = argparse.ArgumentParser(
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
        _add_options(sub, command)
    known, unknown = parser.parse_known_args(arguments)
    given = vars(known)
    name = given.pop("command")
    options = [argument for argument in unknown if argument.startswith("--")]
    if unknown and not options:
        raise UserError(f"unexpected argument {unknown[0]!r}. See: {program} {name} --help")
    for option in options:  # `resolve` reports them all, with suggestions
        given[option[2:].partition("=")[0]] = None
    return name, given


def _add_options(parser: argparse.ArgumentParser, command: Command) -> None:
    fields = command.options.fields()
    groups: dict[str, Any] = {}
    for name, section in command.options.sections().items():
        info = fields[name]
        text = (info.description or "").replace("%", "%%")
        if name in command.positional:
            required = info.is_required()
            parser.add_argument(
                name, help=text, nargs=None if required else "?", default=argparse.SUPPRESS
            )
            if command.project:  # `mlflow run` passes every parameter by name
                parser.add_argument(
                    option_name(name), f"--{name}", dest=name, help=argparse.SUPPRESS,
                    default=argparse.SUPPRESS,
                )  # fmt: skip
            continue
        group = groups.setdefault(section, parser.add_argument_group(section))
        spellings = dict.fromkeys((option_name(name), f"--{name}"))
        shorts = [command.short[name]] if name in command.short else []
        default = "" if info.is_required() else f" (default: {_shown(info.default)})"
        group.add_argument(
            *shorts, *spellings, dest=name, metavar="VALUE", help=text + default,
            default=argparse.SUPPRESS, required=info.is_required(),
        )  # fmt: skip


def _shown(default: Any) -> str:
    if isinstance(default, tuple):
        default = ",".join(default)
    return str(default).replace("%", "%%") if default != "" else "none"

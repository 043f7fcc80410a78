"""The command line: runs a command, prints its result, and returns a true exit status."""

import importlib
import os
import signal
import sys
import time
import traceback
from collections.abc import Mapping, Sequence
from contextlib import nullcontext, redirect_stdout
from typing import Any, NoReturn, TextIO

from synthdetect.commands.catalogue import COMMANDS
from synthdetect.commands.command import Command
from synthdetect.commands.extensions import with_extensions
from synthdetect.commands.parser import Parsed, parse
from synthdetect.system.errors import NegativeAnswer, UserError
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

    With `--json`, stdout gets one JSON object: `command`, `exit_status`, `seconds`, and the result
    of the command or, if it failed, `error`.

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
    began, out = time.monotonic(), sys.stdout
    given_arguments = sys.argv[1:] if arguments is None else arguments
    called = next((argument for argument in given_arguments if not argument.startswith("-")), "")
    result: Mapping[str, Any] = {}
    status, has_hint, parsed = 0, False, None
    try:
        try:
            commands = _commands_for(called) if commands is None else commands
            parsed = parse(given_arguments, program, commands)
            result = _run(parsed, commands[parsed.command]) or {}
        except BrokenPipeError:
            raise
        except (Exception, KeyboardInterrupt) as error:
            status, message, has_hint = _status_of(error)
            result = {"error": message, **getattr(error, "result", {})}
            _print_error(message, has_hint)
        if parsed.json if parsed else "--json" in given_arguments:
            head = {"command": parsed.command if parsed else called, "exit_status": status}
            _print_json({**head, "seconds": round(time.monotonic() - began, 3), **result}, out)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), out.fileno())
        return 1
    return status


def _run(parsed: Parsed, command: Command) -> Mapping[str, Any] | None:
    """Run a command and return its result."""
    options = command.options.resolve(parsed.given)
    if not (parsed.quiet or parsed.json):
        return _call(command, options)
    # What a command without a result prints, such as a script for a shell, is not a message.
    with redirect_stdout(sys.stderr) if command.result else nullcontext():
        from synthdetect.system.console import only_warnings

        if not parsed.quiet:
            return _call(command, options)
        with only_warnings():
            return _call(command, options)


def _call(command: Command, options: Any) -> Mapping[str, Any] | None:
    if command.tracked:
        importlib.import_module("synthdetect.tracking.store").require_store()
    module, _, function = command.function.partition(":")
    result: Mapping[str, Any] | None = getattr(importlib.import_module(module), function)(options)
    return result


def _commands_for(called: str) -> Mapping[str, Command]:
    """`COMMANDS`, with those of the installed extensions unless one of its own is called."""
    return COMMANDS if called in COMMANDS else with_extensions(COMMANDS)


class Terminated(KeyboardInterrupt):
    """SIGTERM was received; it ends a run like Ctrl-C."""


def _terminate(number: int, frame: object) -> NoReturn:
    raise Terminated


def _status_of(error: BaseException) -> tuple[int, str, bool]:
    """Return the exit status of an error, what to print of it, and whether it is unexpected."""
    match error:
        case UserError():
            status, message = 2, str(error)
        case NegativeAnswer():
            status, message = 1, str(error)
        case Terminated():
            status, message = 128 + signal.SIGTERM, "terminated"
        case KeyboardInterrupt():
            status, message = 128 + signal.SIGINT, "interrupted"
        case _:
            status, message = 1, f"{type(error).__name__}: {error}"
    is_known = isinstance(error, (UserError, NegativeAnswer, KeyboardInterrupt))
    return status, visible(without_secrets(message)), not is_known


def _print_error(message: str, has_hint: bool) -> None:
    if os.environ.get(TRACEBACK):
        print(without_secrets(traceback.format_exc()), file=sys.stderr)
    hint = f"\n(set {TRACEBACK}=1 to see where)" if has_hint else ""
    print(f"synthdetect: {message}{hint}", file=sys.stderr)


def _print_json(result: Mapping[str, Any], out: TextIO) -> None:
    from synthdetect.system.plain import to_json

    print(to_json(result), file=out, flush=True)

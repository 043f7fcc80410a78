"""`synthdetect completion`: a static script for a shell, made by shtab from the parser.

The script holds all names, so that completing starts no Python.
"""

import argparse
import sys

import shtab

from synthdetect.commands.catalogue import COMMANDS
from synthdetect.commands.command import Command
from synthdetect.commands.extensions import with_extensions
from synthdetect.commands.options import CompletionOptions
from synthdetect.commands.parser import build_parser
from synthdetect.config.values import choices, placeholder

_FILES = ("PATH", "FILE", "FOLDER", "MODEL")
"""Words in what stands for a value that let files be completed."""


def print_script(options: CompletionOptions) -> None:
    """Print the script for a shell."""
    commands = with_extensions(COMMANDS)
    parser = build_parser("synthdetect", commands, everything=True)
    (subparsers,) = (a for a in parser._actions if isinstance(a, argparse._SubParsersAction))
    for name, command in commands.items():
        for action in subparsers.choices[name]._actions:
            _describe(action, command)
    sys.stdout.write(shtab.complete(parser, shell=options.shell))


def _describe(action: argparse.Action, command: Command) -> None:
    """Tell shtab the values of an option, which the parser itself leaves to the options' class."""
    field = command.options.fields().get(action.dest)
    if field is None:
        return
    listed = choices(field)
    if listed:
        action.choices = listed
    elif any(word in placeholder(field) for word in _FILES):
        action.complete = shtab.FILE  # type: ignore[attr-defined]

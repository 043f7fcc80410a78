"""The command line, built from the options' classes. Nothing heavy is imported for `--help`."""

import argparse
import importlib
import os
import signal
import sys
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NoReturn

from synthdetect import __version__
from synthdetect.config import (
    AS_RECIPE,
    RECIPES,
    AuditOptions,
    CheckSubmissionOptions,
    CvOptions,
    EvaluateOptions,
    ExportOptions,
    ListOptions,
    ManifestOptions,
    Options,
    PredictOptions,
    PromoteOptions,
    RegimesOptions,
    ReportOptions,
    ReproduceOptions,
    ServeOptions,
    TrainOptions,
    option_name,
)
from synthdetect.system.errors import UserError
from synthdetect.system.redaction import without_secrets
from synthdetect.system.visible import visible

TRACEBACK = "SYNTHDETECT_TRACEBACK"
"""Environment variable: set, an error shows its traceback."""


@dataclass(frozen=True)
class Command:
    """One command: its options, and the function `module:name` that takes them.

    Attributes:
        options: the class whose fields are the command's options.
        function: imported only when the command runs.
        help: one line.
        positional: fields that are given by position.
        short: one-letter options by field.
        project: whether `MLproject` has it as an entry point.
        tracked: whether it needs the tracking store.
    """

    options: type[Options]
    function: str
    help: str
    positional: tuple[str, ...] = ()
    short: Mapping[str, str] = field(default_factory=dict)
    project: bool = False
    tracked: bool = True


COMMANDS: dict[str, Command] = {
    "train": Command(
        TrainOptions, "synthdetect.commands.train:train", "one tracked training run", project=True
    ),
    "cv": Command(
        CvOptions, "synthdetect.commands.cv:cross_validate", "cross-validation", project=True
    ),
    "regimes": Command(
        RegimesOptions,
        "synthdetect.commands.regimes:study_regimes",
        "the paper's two regimes, or each of their differences by itself",
        project=True,
    ),
    "predict": Command(
        PredictOptions,
        "synthdetect.commands.predict:predict_images",
        "score images without labels, and write a submission",
        project=True,
    ),
    "evaluate": Command(
        EvaluateOptions,
        "synthdetect.commands.evaluate:evaluate_detector",
        "metrics of a detector or of anybody's predictions",
        project=True,
    ),
    "audit": Command(
        AuditOptions,
        "synthdetect.commands.audit:audit_data",
        "find what in the data gives the labels away",
        project=True,
    ),
    "export": Command(
        ExportOptions,
        "synthdetect.commands.export:export_detector",
        "a detector for another engine, which is faster",
        project=True,
    ),
    "reproduce": Command(
        ReproduceOptions,
        "synthdetect.commands.reproduce:reproduce",
        "do a recorded run again and say whether it comes to the same",
        positional=("run_id",),
        project=True,
    ),
    "report": Command(
        ReportOptions,
        "synthdetect.commands.report:report",
        "a run's results as one page",
        positional=("run_id",),
    ),
    "check-submission": Command(
        CheckSubmissionOptions,
        "synthdetect.commands.submission:check",
        "find every fault of a submission",
        positional=("file",),
        tracked=False,
    ),
    "manifest": Command(
        ManifestOptions,
        "synthdetect.commands.manifest:write_manifest",
        "write the table of a folder's images",
        positional=("folder",),
        short={"output": "-o"},
        tracked=False,
    ),
    "list": Command(
        ListOptions,
        "synthdetect.commands.lists:show",
        "show architectures, recipes and other names",
        positional=("what",),
        tracked=False,
    ),
    "promote": Command(
        PromoteOptions,
        "synthdetect.commands.promote:promote_version",
        "make a model's version the champion",
        positional=("name", "version"),
    ),
    "serve": Command(
        ServeOptions,
        "synthdetect.commands.serve:serve",
        "serve a detector by MLflow's protocol, behind limits",
        short={"model": "-m", "port": "-p"},
        tracked=False,
    ),
}


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
        commands: what there is; None stands for `COMMANDS`.

    Returns:
        0: done; 1: something broke; 2: what the user gave cannot be used; 130 and 143: interrupted.
    """
    os.environ.setdefault("PYTORCH_ENABLE_MPS_FALLBACK", "1")  # torch reads it when imported
    signal.signal(signal.SIGTERM, _terminate)
    try:
        commands = COMMANDS if commands is None else commands
        given_arguments = sys.argv[1:] if arguments is None else arguments
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


class Terminated(KeyboardInterrupt):
    """SIGTERM, which ends a run as Ctrl-C does."""


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
    """The command's name, and what was given to it, as text by option."""
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
    for option in options:  # `resolve` names them all, with what was perhaps meant
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
            if command.project:  # `mlflow run` gives every parameter by name
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


def project_default(command: Command, name: str) -> str:
    """The value of a parameter in `MLproject` that is as good as not giving it."""
    if any(name in differences for differences in RECIPES.values()):
        return AS_RECIPE
    default = command.options.fields()[name].default
    return ",".join(default) if isinstance(default, tuple) else str(default)

"""The exceptions that the command line prints without the name of their class."""

from collections.abc import Mapping
from typing import Any


class UserError(Exception):
    """Input that cannot be used: a file, an option or a name.

    The message names the file or option and says what to do. The command line prints it without
    a traceback and exits with status 2; every other error exits with status 1.

    Args:
        message: The message.
        result: What was found all the same, which `--json` prints beside the message.
    """

    def __init__(self, message: str, result: Mapping[str, Any] | None = None) -> None:
        super().__init__(message)
        self.result = result or {}


class NegativeAnswer(Exception):
    """The answer of a command that has done its work: no.

    The command line prints the message alone and exits with status 1.

    Args:
        message: The message.
        result: What was found, which `--json` prints beside the message.
    """

    def __init__(self, message: str, result: Mapping[str, Any] | None = None) -> None:
        super().__init__(message)
        self.result = result or {}

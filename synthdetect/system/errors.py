"""The one exception that stands for "what the user gave cannot be used"."""


class UserError(Exception):
    """Input that cannot be used: a file, an option or a name.

    The message names the file or option and says what to do. The command line prints it without
    a traceback and exits with status 2; everything else that goes wrong exits with status 1.
    """

"""The exception for input that cannot be used."""


class UserError(Exception):
    """Input that cannot be used: a file, an option or a name.

    The message names the file or option and says what to do. The command line prints it without
    a traceback and exits with status 2; every other error exits with status 1.
    """

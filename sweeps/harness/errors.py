"""The error for problems that the user can fix."""


class UserError(Exception):
    """Bad input, or a problem with the machine, the files or the network.

    A command prints the message on one line, without a traceback, and exits with status 2. The
    message says what was received, what was expected and what to do.
    """

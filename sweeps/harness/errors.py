"""The one kind of error that a person at the keyboard can put right."""


class UserError(Exception):
    """Bad input or a bad environment: told in one line, exit status 2, no traceback.

    The message says what was received, what is expected, and what to do.
    """

"""The one exception that means: the user can put this right."""


class UserError(Exception):
    """Wrong usage or wrong input. The message is one line: what, which file, what would be right.

    The entries print it to stderr without a traceback and exit with status 2.
    """

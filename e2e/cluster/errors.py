"""The one error of this package: its message says what failed, with which value, and what helps."""


class ClusterError(Exception):
    """Something that the user can act on; the command line prints it without a traceback."""

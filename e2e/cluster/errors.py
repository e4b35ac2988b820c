"""The errors of this package: the message says what failed, with which value, and what helps."""


class ClusterError(Exception):
    """Something that the user can act on; the command line prints it without a traceback."""


class EndedError(ClusterError):
    """A process ended that should run: waiting any longer for what it does is in vain."""

"""Expected reasons to stop, without a traceback."""


class Failure(Exception):
    """A person can act on it."""


class StartFailed(Failure):
    """The server never became ready. The text shows the end of its log."""

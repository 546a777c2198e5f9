"""Expected reasons to stop, told without a traceback."""


class Failure(Exception):
    """A person can act on it."""


class StartFailed(Failure):
    """A server ended or stayed silent before it was ready. The text shows the end of its log."""

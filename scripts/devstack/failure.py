"""Expected reasons to stop, told without a traceback."""


class Failure(Exception):
    """Something that a person can act on."""


class StartFailed(Failure):
    """A server ended or stayed silent before it was ready; the text shows the end of its log."""

class RenderError(Exception):
    """str() gives reason and line."""


class TimeUp(Exception):
    """A timer's signal raises it at any line."""

"""Errors of users' templates."""


class RenderError(Exception):
    """A template cannot be rendered: str() gives the reason and, if known, the line."""


class TimeUp(Exception):
    """The time of a template or condition is over. A signal raises it, at any line of the code."""

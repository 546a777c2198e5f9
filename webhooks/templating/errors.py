"""Errors of users' templates and conditions."""


class RenderError(Exception):
    """The template cannot be rendered; str() gives reason and line."""


class TimeUp(Exception):
    """A timer's signal raises it at any line."""

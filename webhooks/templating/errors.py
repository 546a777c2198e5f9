"""What can go wrong with what users wrote."""


class RenderError(Exception):
    """The template cannot be rendered; str() says why, and in which line."""


class TimeUp(Exception):
    """Raised at any line, by an alarm."""

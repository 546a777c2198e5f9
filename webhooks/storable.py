"""Text that PostgreSQL can hold: no NUL, and no surrogate without its other half."""

import re

UNSTORABLE = re.compile(r'[\x00\ud800-\udfff]')


def storable(text: str) -> str:
    """Return the text with a replacement character for each that PostgreSQL does not store."""
    return UNSTORABLE.sub('\ufffd', text)

"""What PostgreSQL can hold: text without NUL and without half of a surrogate pair, keys and times within its range.

And what a line of a log can hold.
"""

import re
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any

from django.utils.translation import gettext_lazy as _

UNSTORABLE = re.compile(r'[\x00\ud800-\udfff]')
# Control characters, ends of lines, and what changes the direction of the text around it.
UNPRINTABLE = re.compile('[\x00-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]')
DIGITS_OF_KEYS = 19
# Of JSON. Python goes through some hundred, as far as the stack is free where it does.
MAX_LEVELS = 100
# Of a time from UTC. Python takes offsets below 24 hours.
END_OF_OFFSETS = timedelta(hours=16)
NO_SUCH_OFFSET = _('Enter a time whose offset from UTC is less than 16 hours.')


def storable(text: str) -> str:
    """Return the text with a replacement character for each that PostgreSQL does not store."""
    return UNSTORABLE.sub('\ufffd', text)


def storable_json(value: Any) -> Any:
    """Return JSON whose texts, keys too, are storable. It is as flat as what is known of a request."""
    if isinstance(value, dict):
        return {storable(key): storable_json(item) for key, item in value.items()}
    return storable(value) if isinstance(value, str) else value


def printable(text: str) -> str:
    """Return the text in one line, each character that would change how the line is read written as `\\x1b`."""
    return UNPRINTABLE.sub(lambda found: found[0].encode('unicode_escape', 'surrogatepass').decode(), text)


def is_key(text: str) -> bool:
    """Whether the text is a number with as many digits as a bigint may have: int() refuses those with thousands."""
    return text.isdecimal() and len(text) <= DIGITS_OF_KEYS


def is_storable_time(moment: datetime) -> bool:
    return abs(moment.utcoffset() or timedelta()) < END_OF_OFFSETS


def is_storable(value: Any) -> bool:
    """Whether no text in the value is one that PostgreSQL cannot hold, and the value is not nested too deeply."""
    return is_flat(value) and not any(isinstance(node, str) and UNSTORABLE.search(node) for node in nodes(value))


def is_flat(value: Any, levels: int = MAX_LEVELS) -> bool:
    """Whether JSON has so many levels at most."""
    if isinstance(value, dict):
        value = list(value.values())
    if not isinstance(value, list):
        return True
    return levels > 0 and all(is_flat(item, levels - 1) for item in value)


def nodes(value: Any) -> Iterator[Any]:
    """Yield the value and all that is in it, keys too."""
    yield value
    if isinstance(value, dict):
        for pair in value.items():
            yield from nodes(list(pair))
    if isinstance(value, list):
        for item in value:
            yield from nodes(item)

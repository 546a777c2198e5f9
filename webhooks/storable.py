"""Values that PostgreSQL or a log's line cannot hold."""

import re
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any

from django.utils.translation import gettext_lazy as _

UNSTORABLE = re.compile(r'[\x00\ud800-\udfff]')
UNPRINTABLE = re.compile('[\x00-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]')
MAX_KEY_DIGITS = 19
# Python recurses some hundred levels.
MAX_NESTING_LEVELS = 100
# From UTC. Python takes offsets below 24 hours.
END_OF_OFFSETS = timedelta(hours=16)
NO_SUCH_OFFSET = _('Enter a time zone that is less than 16 hours away from UTC.')


def storable(text: str) -> str:
    """Replace unstorable characters."""
    return UNSTORABLE.sub('\ufffd', text)


def storable_json(value: Any) -> Any:
    if isinstance(value, dict):
        return {storable(key): storable_json(item) for key, item in value.items()}
    return storable(value) if isinstance(value, str) else value


def printable(text: str) -> str:
    """Return the text in one line, with unsafe characters escaped."""
    return UNPRINTABLE.sub(lambda found: found[0].encode('unicode_escape', 'surrogatepass').decode(), text)


def is_key(text: str) -> bool:
    """int() refuses thousands of digits."""
    return text.isdecimal() and len(text) <= MAX_KEY_DIGITS


def is_storable_time(moment: datetime) -> bool:
    return abs(moment.utcoffset() or timedelta()) < END_OF_OFFSETS


def is_storable(value: Any) -> bool:
    """Whether PostgreSQL can hold the value, and nesting is shallow."""
    return is_flat(value) and not any(isinstance(node, str) and UNSTORABLE.search(node) for node in nodes(value))


def is_flat(value: Any, levels: int = MAX_NESTING_LEVELS) -> bool:
    if isinstance(value, dict):
        value = list(value.values())
    if not isinstance(value, list):
        return True
    return levels > 0 and all(is_flat(item, levels - 1) for item in value)


def nodes(value: Any) -> Iterator[Any]:
    yield value
    if isinstance(value, dict):
        for pair in value.items():
            yield from nodes(list(pair))
    if isinstance(value, list):
        for item in value:
            yield from nodes(item)

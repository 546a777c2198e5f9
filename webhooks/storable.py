"""Finds and replaces values that PostgreSQL, or a line of a log, cannot hold."""

import re
from collections.abc import Iterator
from datetime import datetime, timedelta
from math import isfinite
from typing import Any
from uuid import UUID

from django.utils.translation import gettext_lazy as _

# PostgreSQL refuses these in text and JSON: NUL, and halves of surrogate pairs.
UNSTORABLE = re.compile(r'[\x00\ud800-\udfff]')
# Characters that break a line, hide text or turn its direction.
UNPRINTABLE = re.compile('[\x00-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]')
# A primary key has 64 bits.
MAX_KEY = 2**63 - 1
MAX_KEY_DIGITS = 19
# Python recurses through some hundred levels, then it fails.
MAX_NESTING_LEVELS = 100
# PostgreSQL takes no offset from UTC of this many hours. Python takes more, below 24.
END_OF_OFFSETS = timedelta(hours=16)
NO_SUCH_OFFSET = _('Enter a time zone that is less than 16 hours away from UTC.')


def storable(text: str) -> str:
    """Return the text with a replacement character for each that PostgreSQL cannot store."""
    return UNSTORABLE.sub('\ufffd', text)


def storable_json(value: Any) -> Any:
    """Return the value with storable texts, in dicts at any depth. Lists are not looked into."""
    if isinstance(value, dict):
        return {storable(key): storable_json(item) for key, item in value.items()}
    return storable(value) if isinstance(value, str) else value


def printable(text: str) -> str:
    """Return the text in one line, with unsafe characters escaped."""
    return UNPRINTABLE.sub(lambda found: found[0].encode('unicode_escape', 'surrogatepass').decode(), text)


def is_key(text: str) -> bool:
    """Return whether the text can be a primary key. int() would raise ValueError for thousands of digits."""
    return text.isdecimal() and len(text) <= MAX_KEY_DIGITS


def uuid_of(text: str) -> UUID | None:
    """Return the UUID that the text spells. None: it is not one."""
    try:
        return UUID(text)
    except ValueError:
        return None


def is_storable_time(moment: datetime) -> bool:
    """Return whether PostgreSQL takes the time's offset from UTC."""
    return abs(moment.utcoffset() or timedelta()) < END_OF_OFFSETS


def is_storable(value: Any) -> bool:
    """Return whether PostgreSQL can store the JSON value: texts are storable, numbers finite, nesting is shallow."""
    return is_flat(value) and not any(
        (isinstance(node, str) and UNSTORABLE.search(node)) or (isinstance(node, float) and not isfinite(node))
        for node in nodes(value)
    )


def is_flat(value: Any, levels: int = MAX_NESTING_LEVELS) -> bool:
    """Return whether dicts and lists are nested at most this many levels deep."""
    if isinstance(value, dict):
        value = list(value.values())
    if not isinstance(value, list):
        return True
    return levels > 0 and all(is_flat(item, levels - 1) for item in value)


def nodes(value: Any) -> Iterator[Any]:
    """Yield a JSON value and all that is in it; for a dict also its keys, and each pair as a list."""
    yield value
    if isinstance(value, dict):
        for pair in value.items():
            yield from nodes(list(pair))
    if isinstance(value, list):
        for item in value:
            yield from nodes(item)

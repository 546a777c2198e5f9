"""Some endpoints send back the request. A malicious endpoint can evade it."""

import base64
import binascii
import html
import json
import re
from collections.abc import Iterable, Iterator
from functools import lru_cache
from urllib.parse import quote, quote_plus, unquote, unquote_plus, urlsplit

from .masking import MASK

# Every answer contains shorter texts.
SHORTEST = 4
# Words such as Bearer are shorter.
SHORTEST_PART = 8
PARTS = re.compile(r'[\s,;:=&"]+')
STRETCHES = re.compile(r'[^A-Za-z0-9]+')
SAFE_IN_URL = "!#$%&'()*+,/:;=?@[]~"
ESCAPE = re.compile('%[0-9A-F]{2}')
# Keeps the length of a text until it is cut.
HIDDEN = '\ue000'
RUN = re.compile(f'{HIDDEN}+')


def of_headers(values: Iterable[str]) -> Iterator[str]:
    for value in values:
        yield value
        yield from (part for part in PARTS.split(value) if len(part) >= SHORTEST_PART)
        yield from _login(value)


def of_signature(value: str) -> list[str]:
    """Return the stretches that look the same in each spelling."""
    return [stretch for stretch in STRETCHES.split(value) if len(stretch) >= SHORTEST]


def _login(value: str) -> Iterator[str]:
    """RFC 7617."""
    scheme, _space, token = value.partition(' ')
    if scheme.lower() != 'basic':
        return
    try:
        pair = base64.b64decode(token, validate=True).decode()
    except (binascii.Error, ValueError):
        return
    yield pair
    yield from pair.split(':', 1)


def of_url(url: str, hides_path: bool = False) -> Iterator[str]:
    """Yield the parts that `mask_url` masks."""
    parts = urlsplit(url)
    for text in (parts.username, parts.password):
        if text:
            yield text
            yield unquote(text)
    if hides_path:
        path = parts.path.strip('/')
        for text in (path, *(part for part in path.split('/') if len(part) >= SHORTEST_PART)):
            yield from (text, unquote(text))
    for parameter in parts.query.split('&'):
        name, equals, value = parameter.partition('=')
        text = value if equals else name
        yield from (text, unquote(text), unquote_plus(text))


class Echoes:
    def __init__(self, texts: Iterable[str]):
        found = {spelling for text in set(texts) if len(text) >= SHORTEST for spelling in _spellings(text)}
        self._spellings = sorted((one for one in found if len(one) >= SHORTEST), key=len, reverse=True)
        self._longest = len(self._spellings[0]) if self._spellings else 0

    def beginning(self, text: str, limit: int) -> str:
        """Secrets are masked even at the cut."""
        kept = text[: limit + self._longest]
        for spelling in self._spellings:
            if spelling in kept:
                kept = kept.replace(spelling, HIDDEN * len(spelling))
        return RUN.sub(MASK, kept[:limit])[:limit]


@lru_cache(1024)
def _spellings(text: str) -> frozenset[str]:
    """Return the text as JSON, HTML, URLs and a wrong charset show it."""
    if text.isascii() and text.isalnum():
        return frozenset({text})
    escaped = {json.dumps(text)[1:-1], json.dumps(text, ensure_ascii=False)[1:-1]}
    escaped |= {one.replace('/', '\\/') for one in escaped}
    quoted = {quote(text), quote(text, safe=''), quote(text, safe=SAFE_IN_URL), quote_plus(text)}
    quoted |= {ESCAPE.sub(lambda found: found[0].lower(), one) for one in quoted}
    marked = html.escape(text)
    marked_by_number = marked.replace('&#x27;', '&#39;').replace('&quot;', '&#34;')
    mistaken = {
        text.encode('latin-1', 'replace').decode('utf-8', 'replace'),
        text.encode('utf-8', 'replace').decode('latin-1'),
    }
    return frozenset({text, marked, marked_by_number, html.escape(text, quote=False), *escaped, *quoted, *mistaken})

"""Some endpoints send back the request. A malicious endpoint can evade it."""

import base64
import binascii
import html
import json
import re
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property, lru_cache
from itertools import accumulate
from urllib.parse import quote, unquote, unquote_plus, urlsplit

from .masking import MASK

# Every answer contains shorter texts.
SHORTEST = 4
# Words such as Bearer are shorter.
SHORTEST_PART = 8
PARTS = re.compile(r'[\s,;:=&"]+')
STRETCHES = re.compile(r'[^A-Za-z0-9]+')
SAFE_IN_URL = "!#$%&'()*+,/:;=?@[]~"
# Words of JSON and of Python: no secrets, and JSON without them is none.
WORDS = frozenset({'true', 'false', 'null', 'True', 'False', 'None'})
# One character as JSON, a URL or HTML escapes it.
ESCAPE = re.compile(
    r'(\\ud[89ab][0-9a-f]{2}\\ud[c-f][0-9a-f]{2}|\\u[0-9a-f]{4}|\\[^u]'
    r'|%[cd][0-9a-f]%[89ab][0-9a-f]|%e[0-9a-f](?:%[89ab][0-9a-f]){2}|%f[0-7](?:%[89ab][0-9a-f]){3}|%[0-9a-f]{2}'
    r'|&(?:#[0-9]{1,7}|#x[0-9a-f]{1,6}|[a-z]{2,8});)',
    re.IGNORECASE | re.DOTALL,
)
# Characters of the longest escape.
LONGEST_ESCAPE = 12
# Characters: as many of a longer secret are enough to know it.
ENOUGH = 128
# Characters of an answer, times texts to look for in it: some hundredths of a second.
MOST_COMPARISONS = 16_000_000
# Characters that take as long as a call.
CALL = 50
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
    """Masks `texts` in one answer, however JSON, HTML, URLs or a wrong charset spell them."""

    def __init__(self, texts: Iterable[str]):
        self._texts = {text for text in texts if len(text) >= SHORTEST and text not in WORDS}
        self._room = MOST_COMPARISONS

    @cached_property
    def _wanted(self) -> list[str]:
        """Return what to look for in a plain text, the longest first."""
        return sorted({form for text in self._texts for form in _plain_forms(text)}, key=len, reverse=True)

    def beginning(self, text: str, limit: int) -> str:
        """Return the first `limit` characters, masked. A secret is masked even at the cut.

        When too much was looked for in an answer, the rest is masked as a whole.
        """
        if len(text) < SHORTEST or not self._texts:
            return text[:limit]
        kept = text[: limit + LONGEST_ESCAPE * ENOUGH]
        self._room -= (len(kept) + CALL) * len(self._texts)
        if self._room < 0:
            return MASK[:limit]
        parts = ESCAPE.split(kept)
        plain = hidden = _plain(parts)
        for wanted in self._wanted:
            hidden = _hide(wanted, hidden)
        return text[:limit] if hidden == plain else _masked(parts, hidden, limit)


def _hide(wanted: str, text: str) -> str:
    """Hide it in the text: of a long one also a beginning, for endpoints shorten what they repeat."""
    if len(wanted) <= ENOUGH:
        return text.replace(wanted, HIDDEN * len(wanted))
    start = -1
    while (start := text.find(wanted[:ENOUGH], start + 1)) >= 0:
        length = _agreement(wanted, text, start)
        text = text[:start] + HIDDEN * length + text[start + length :]
    return text


def _agreement(wanted: str, text: str, start: int) -> int:
    """Return how many characters agree from `start` on. ENOUGH do."""
    fewest, most = ENOUGH, len(wanted)
    while fewest < most:
        middle = (fewest + most + 1) // 2
        fewest, most = (middle, most) if text.startswith(wanted[:middle], start) else (fewest, middle - 1)
    return fewest


def _masked(parts: Sequence[str], hidden: str, limit: int) -> str:
    """Return the first `limit` characters of the parts, with a mask for each run of hidden ones."""
    spelled = [one for index, part in enumerate(parts) for one in ([part] if index % 2 else part)]
    end, at, shown = bisect_right(list(accumulate(map(len, spelled))), limit), 0, []
    for run in RUN.finditer(hidden, 0, end):
        shown += [*spelled[at : run.start()], MASK]
        at = run.end()
    return ''.join([*shown, *spelled[at:end]])[:limit]


def _plain(parts: Sequence[str]) -> str:
    """Return what the parts mean: every other one is an escape, of one character. A plus may be a space in a URL."""
    return ''.join([_unescaped(part) if index % 2 else part for index, part in enumerate(parts)]).replace('+', ' ')


@lru_cache(1024)
def _unescaped(escape: str) -> str:
    """Return the one character."""
    match escape[0]:
        case '%':
            meant = unquote(escape)
        case '&':
            meant = html.unescape(escape)
        case _:
            meant = _of_json(escape)
    return meant if len(meant) == 1 else '\ufffd'


def _of_json(escape: str) -> str:
    try:
        return json.loads(f'"{escape}"')
    except ValueError:
        return escape[1:]


@lru_cache(1024)
def _plain_forms(text: str) -> frozenset[str]:
    """Return what the text's spellings mean: mostly itself, but a spelling may leave escapes in it as they are."""
    if text.isascii() and not ESCAPE.search(text):
        return frozenset({text.replace('+', ' ')})
    spellings = [text, json.dumps(text, ensure_ascii=False)[1:-1], html.escape(text), quote(text, safe=SAFE_IN_URL)]
    mistaken = [
        text.encode('latin-1', 'replace').decode('utf-8', 'replace'),
        text.encode('utf-8', 'replace').decode('latin-1'),
    ]
    forms = {text.replace('+', ' '), *(_plain(ESCAPE.split(spelling)) for spelling in (*spellings, *mistaken))}
    return frozenset(form for form in forms if len(form) >= SHORTEST)

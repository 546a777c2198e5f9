"""Masks secrets in answers: some endpoints send back the request.

A malicious endpoint can evade it, by a spelling of its own.
"""

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

# Shorter texts occur in every answer by chance. If they were masked, no answer could be read.
MIN_SECRET_CHARS = 4
# Parts of a header's value or a path. Words such as Bearer are shorter, and not secret.
MIN_PART_CHARS = 8
# Between the parts of a header's value.
PART_SEPARATORS = re.compile(r'[\s,;:=&"]+')
# Base64 has `+`, `/` and `=`, which URLs and JSON may escape.
NOT_ALPHANUMERIC = re.compile(r'[^A-Za-z0-9]+')
# Characters that requests does not quote in a URL.
SAFE_IN_URL = "!#$%&'()*+,/:;=?@[]~"
# Words of JSON and of Python. They are no secrets, and with a mask in place of `true` nothing could parse the JSON.
LITERALS = frozenset({'true', 'false', 'null', 'True', 'False', 'None'})
# One character as JSON, a URL or HTML escapes it.
ESCAPE = re.compile(
    r'(\\ud[89ab][0-9a-f]{2}\\ud[c-f][0-9a-f]{2}|\\u[0-9a-f]{4}|\\[^u]'
    r'|%[cd][0-9a-f]%[89ab][0-9a-f]|%e[0-9a-f](?:%[89ab][0-9a-f]){2}|%f[0-7](?:%[89ab][0-9a-f]){3}|%[0-9a-f]{2}'
    r'|&(?:#[0-9]{1,7}|#x[0-9a-f]{1,6}|[a-z]{2,8});)',
    re.IGNORECASE | re.DOTALL,
)
# The longest escape is a surrogate pair of JSON.
MAX_ESCAPE_CHARS = 12
# This many characters from the beginning of a longer secret are enough to know it, and are masked.
PREFIX_CHARS = 128
# Characters of an answer, times texts to look for in it. They take some hundredths of a second of the processor. If an
# endpoint answers with very many headers, no thread is held up longer than that.
MAX_COMPARED_CHARS = 16_000_000
# Even in a short answer, a look for a text costs as much as this many characters.
CALL_COST_CHARS = 50
# Stands for a hidden character, so that a text keeps its length until it is cut.
HIDDEN_CHAR = '\ue000'
HIDDEN_RUN = re.compile(f'{HIDDEN_CHAR}+')


def of_headers(values: Iterable[str]) -> Iterator[str]:
    """Yield the texts to mask in the answer to a request with these header values.

    They are each value, its longer parts, and user and password of a basic login.
    """
    for value in values:
        yield value
        yield from (part for part in PART_SEPARATORS.split(value) if len(part) >= MIN_PART_CHARS)
        yield from _login(value)


def of_signature(value: str) -> list[str]:
    """Return the stretches of letters and digits in a signature, as texts to mask.

    URLs and JSON may spell base64's `+`, `/` and `=` in several ways, but never these stretches.
    """
    return [stretch for stretch in NOT_ALPHANUMERIC.split(value) if len(stretch) >= MIN_SECRET_CHARS]


def _login(value: str) -> Iterator[str]:
    """Yield user and password, together and each, if the value is a basic login (RFC 7617)."""
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
    """Yield the secret texts of a URL, raw and unquoted: the same that `mask_url` masks.

    They are user, password and the values of the query, and with `hides_path` the path and its longer parts. Raises
    ValueError for a URL that urlsplit() refuses.
    """
    parts = urlsplit(url)
    for text in (parts.username, parts.password):
        if text:
            yield text
            yield unquote(text)
    if hides_path:
        path = parts.path.strip('/')
        for text in (path, *(part for part in path.split('/') if len(part) >= MIN_PART_CHARS)):
            yield from (text, unquote(text))
    for parameter in parts.query.split('&'):
        name, equals, value = parameter.partition('=')
        text = value if equals else name
        yield from (text, unquote(text), unquote_plus(text))


def of_proxies(urls: Iterable[str]) -> Iterator[str]:
    """Yield the texts to mask in an answer that came through these proxies: their logins, also as a header has them."""
    for url in urls:
        yield from of_url(url)
        parts = urlsplit(url)
        if parts.username:
            login = f'{unquote(parts.username)}:{unquote(parts.password or "")}'
            yield base64.b64encode(login.encode()).decode()


class Echoes:
    """Masks `texts` in one answer, however JSON, HTML, URLs or a wrong charset spell them.

    Make one for each answer: it also counts the time that the endpoint may take up with its answer.
    """

    def __init__(self, texts: Iterable[str]):
        self._texts = {text for text in texts if len(text) >= MIN_SECRET_CHARS and text not in LITERALS}
        self._room = MAX_COMPARED_CHARS

    @cached_property
    def _wanted(self) -> list[str]:
        """Return the forms of all texts to look for in a plain text, the longest first."""
        return sorted({form for text in self._texts for form in _plain_forms(text)}, key=len, reverse=True)

    def beginning(self, text: str, limit: int) -> str:
        """Return the first `limit` characters of `text`, with a mask for each secret, even for one at the cut.

        Once MAX_COMPARED_CHARS are used up in this answer, each further text is masked as a whole.
        """
        if len(text) < MIN_SECRET_CHARS or not self._texts:
            return text[:limit]
        kept = text[: limit + MAX_ESCAPE_CHARS * PREFIX_CHARS]
        self._room -= (len(kept) + CALL_COST_CHARS) * len(self._texts)
        if self._room < 0:
            return MASK[:limit]
        parts = ESCAPE.split(kept)
        plain = hidden = _plain(parts)
        for wanted in self._wanted:
            hidden = _hide(wanted, hidden)
        return text[:limit] if hidden == plain else _masked(parts, hidden, limit)


def _hide(wanted: str, text: str) -> str:
    """Return the text with HIDDEN_CHAR in place of each character of `wanted`.

    Some endpoints shorten their answer. So the beginning of a long secret is hidden too, from PREFIX_CHARS on.
    """
    if len(wanted) <= PREFIX_CHARS:
        return text.replace(wanted, HIDDEN_CHAR * len(wanted))
    start = -1
    while (start := text.find(wanted[:PREFIX_CHARS], start + 1)) >= 0:
        length = _agreement(wanted, text, start)
        text = text[:start] + HIDDEN_CHAR * length + text[start + length :]
    return text


def _agreement(wanted: str, text: str, start: int) -> int:
    """Return how many characters of `wanted` stand in the text from `start` on. The first PREFIX_CHARS do."""
    fewest, most = PREFIX_CHARS, len(wanted)
    while fewest < most:
        middle = (fewest + most + 1) // 2
        fewest, most = (middle, most) if text.startswith(wanted[:middle], start) else (fewest, middle - 1)
    return fewest


def _masked(parts: Sequence[str], hidden: str, limit: int) -> str:
    """Return the first `limit` characters of the parts, with a mask for each run of hidden ones."""
    spelled = [one for index, part in enumerate(parts) for one in ([part] if index % 2 else part)]
    end, at, shown = bisect_right(list(accumulate(map(len, spelled))), limit), 0, []
    for run in HIDDEN_RUN.finditer(hidden, 0, end):
        shown += [*spelled[at : run.start()], MASK]
        at = run.end()
    return ''.join([*shown, *spelled[at:end]])[:limit]


def _plain(parts: Sequence[str]) -> str:
    """Return the meaning of the parts, one character for each escape. Every other part is an escape.

    A plus becomes a space, as it may mean one in a URL.
    """
    return ''.join([_unescaped(part) if index % 2 else part for index, part in enumerate(parts)]).replace('+', ' ')


@lru_cache(1024)
def _unescaped(escape: str) -> str:
    """Return the character that the escape means, or a replacement character if it means no single one."""
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
    """Return the meanings of all spellings of the text. Mostly there is a single one, the text itself.

    Some spellings leave an escape in the text unchanged. Then reading that escape gives another text.
    """
    if text.isascii() and not ESCAPE.search(text):
        return frozenset({text.replace('+', ' ')})
    spellings = [text, json.dumps(text, ensure_ascii=False)[1:-1], html.escape(text), quote(text, safe=SAFE_IN_URL)]
    mistaken = [
        text.encode('latin-1', 'replace').decode('utf-8', 'replace'),
        text.encode('utf-8', 'replace').decode('latin-1'),
    ]
    forms = {text.replace('+', ' '), *(_plain(ESCAPE.split(spelling)) for spelling in (*spellings, *mistaken))}
    return frozenset(form for form in forms if len(form) >= MIN_SECRET_CHARS)

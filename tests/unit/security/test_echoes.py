import html
import json
import random
import string
from collections.abc import Callable
from urllib.parse import quote, quote_plus

import pytest

from webhooks.constants import MAX_RESPONSE_KEPT_CHARS, MAX_RESPONSE_READ_BYTES
from webhooks.security import echoes
from webhooks.security.echoes import Echoes, of_headers
from webhooks.security.masking import MASK

SECRETS = [
    't0ken-"of"/the&<receiver>-äöü',
    'p4ss/wörd "&+\'<tok3n>',
    'a=b;c d\\e%2Fq',
    'C:\\new\\u0041\\table',
    '100%25 &amp; &quot;more+',
    'пароль из слов',
    'smile 😀 smile',
    'c2VjcmV0IHNl+/Y3JldA==',
    '{"user": "me"}',
    '%41%42%43%44',
]
SPELLINGS: list[Callable[[str], str]] = [
    str,
    lambda text: json.dumps(text)[1:-1],
    lambda text: json.dumps(text, ensure_ascii=False)[1:-1],
    lambda text: json.dumps(text)[1:-1].replace('/', '\\/'),
    html.escape,
    lambda text: html.escape(text, quote=False),
    lambda text: html.escape(text).replace('&#x27;', '&#39;').replace('&quot;', '&#34;'),
    lambda text: ''.join(f'&#{ord(one)};' for one in text),
    quote,
    lambda text: quote(text, safe=''),
    lambda text: quote(text, safe='').replace('%2F', '%2f').replace('%C3', '%c3'),
    lambda text: quote(text, safe=echoes.SAFE_IN_URL),
    quote_plus,
    lambda text: text.encode('latin-1', 'replace').decode('utf-8', 'replace'),
    lambda text: text.encode().decode('latin-1'),
]


@pytest.mark.parametrize('secret', SECRETS)
def test_a_secret_is_masked_however_it_is_spelled(secret: str):
    masked = Echoes([secret])
    for spell in SPELLINGS:
        said = f'<p>&nbsp;you sent %20\\" {spell(secret)} to \\u00e4 &amp; +1</p>'
        shown = masked.beginning(said, MAX_RESPONSE_KEPT_CHARS)
        assert shown == said.replace(spell(secret), MASK), spell(secret)


@pytest.mark.parametrize(
    'said', ['', 'ok', '%', '%4', '\\u12', '&amp', '&nosuch;', '%E4%FF', '\\ud83d', 'x\\\ny', '\\n', '\\Users', '++']
)
def test_an_answer_is_shown_as_it_was_spelled_but_for_secrets(said: str):
    masked = Echoes(['s3cret+of me'])
    assert masked.beginning(said, 100) == said
    assert masked.beginning(f'{said}s3cret+of me{said}', 100) == f'{said}{MASK}{said}'


def test_words_of_json_are_no_secrets():
    assert Echoes(['true', 'None', '2024']).beginning('{"ok": true, "year": 2024}', 100) == (
        f'{{"ok": true, "year": {MASK}}}'
    )


@pytest.mark.parametrize('shift', range(-40, 1, 8))
def test_an_escaped_secret_at_the_cut_is_not_kept_in_part(shift: int):
    said = '.' * (100 + shift) + quote('Zö/q' * 40, safe='') + ' and more'
    shown = Echoes(['Zö/q' * 40]).beginning(said, 100)
    assert len(shown) <= 100
    assert 'Z' not in shown


@pytest.mark.parametrize('length', [129, 500, 8000])
def test_the_beginning_of_a_long_secret_is_masked_too(length: int):
    """Endpoints shorten what they repeat, and shortened values are secret too."""
    secret = ''.join(random.Random(length).choices(string.ascii_letters, k=length))
    masked = Echoes([secret])
    for said in (secret, secret[:-1], secret[:128], f'{secret[:200]}{secret}'):
        assert set(masked.beginning(f'<{said}>', MAX_RESPONSE_READ_BYTES).split(MASK)) == {'<', '>'}


def test_a_secret_that_repeats_itself_is_masked_as_a_whole():
    for length in (600, 1000, 1001):
        secret = ('Zq' * length)[:length]
        assert Echoes([secret]).beginning(f'<{secret}>', 2000) == f'<{MASK}>'


class TestWork:
    """It is done while other webhooks wait."""

    VALUES = tuple(f'{number:08}' for number in range(30_000))

    def test_an_answer_that_would_take_long_to_search_is_masked_as_a_whole(self, monkeypatch):
        looked: list[str] = []
        hide = echoes._hide
        monkeypatch.setattr(echoes, '_hide', lambda wanted, text: looked.append(wanted) or hide(wanted, text))
        masked = Echoes(of_headers([' '.join(self.VALUES)]))
        # The reason comes first, and is looked through.
        assert masked.beginning('HTTP 500 at 00012345', 100) == f'HTTP 500 at {MASK}'
        assert len(looked) == len(self.VALUES) + 1
        assert masked.beginning('x' * MAX_RESPONSE_READ_BYTES, MAX_RESPONSE_KEPT_CHARS) == MASK
        for _times in range(100):
            masked.beginning('X-Name', 1000)
        assert len(looked) <= 20 * len(self.VALUES)

    def test_an_ordinary_answer_is_looked_through_however_many_headers_it_has(self):
        masked = Echoes(of_headers(f's3cret-{number}' for number in range(30)))
        for _times in range(100):
            assert masked.beginning('text/html' * 4, 1000) == 'text/html' * 4
        text = f'{"." * (MAX_RESPONSE_READ_BYTES - 10)}s3cret-7'
        assert masked.beginning(text, MAX_RESPONSE_KEPT_CHARS) == '.' * MAX_RESPONSE_KEPT_CHARS
        assert masked.beginning(text, MAX_RESPONSE_READ_BYTES).endswith(f'.{MASK}')

    def test_it_grows_with_what_is_kept_and_not_with_what_is_read(self, monkeypatch):
        lengths: list[int] = []
        hide = echoes._hide
        monkeypatch.setattr(echoes, '_hide', lambda wanted, text: lengths.append(len(text)) or hide(wanted, text))
        masked = Echoes(['s3cret-one', 's3cret-two', 'x' * 8000])
        for length in (8 * 1024, 64 * 1024):
            masked.beginning('s3cret-on' * length, MAX_RESPONSE_KEPT_CHARS)
        assert lengths == [MAX_RESPONSE_KEPT_CHARS + echoes.MAX_ESCAPE_CHARS * echoes.PREFIX_CHARS] * 6

    def test_a_text_is_looked_for_once_and_not_in_each_spelling(self):
        assert len(Echoes(['plain-token: "x" <y>/z', 'ünïcode'])._wanted) == 4

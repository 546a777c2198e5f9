"""For signatures and credentials, which no template may see."""

import re
from collections.abc import Callable
from secrets import token_hex

from .errors import RenderError

ALGORITHMS = ('sha1', 'sha256', 'sha512')
ENCODINGS = ('hex', 'base64')
SIGNED = ('body', 'timestamp.body')
# old: the previous secret while it is valid, else the new one.
SECRETS = ('old', 'new')


class Placeholders:
    """Nobody can guess `mark`, so no object's name can fake a placeholder."""

    def __init__(self) -> None:
        self.mark = f'w{token_hex(16)}'
        self._pattern = re.compile(f'{self.mark}_([a-z0-9.-]+)_')

    def fill(self, text: str, value_of: Callable[[str], str]) -> str:
        """`value_of` gets a placeholder's key."""
        return self._pattern.sub(lambda found: value_of(found[1]), text) if self.mark in text else text


def placeholder(mark: str, *key: str) -> str:
    """JSON, HTML and URLs leave it unchanged."""
    return f'{mark}_{"-".join(key)}_'


def signature(mark: str, algorithm: str, encoding: str, over: str, secret: str) -> str:
    """Raises RenderError."""
    for value, known in ((algorithm, ALGORITHMS), (encoding, ENCODINGS), (over, SIGNED), (secret, SECRETS)):
        if value not in known:
            raise RenderError(f'hmac() knows {", ".join(known)}, but not {value}')
    return placeholder(mark, 'hmac', algorithm, encoding, over, secret)

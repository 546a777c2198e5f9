"""Placeholders for signatures and credentials, which no template may see.

The process that runs templates never has the values. They are filled in afterwards.
"""

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
    """The placeholders of one request. Nobody can guess `mark`, so no object's name can fake one."""

    def __init__(self) -> None:
        self.mark = f'w{token_hex(16)}'
        self._pattern = re.compile(f'{self.mark}_([a-z0-9.-]+)_')

    def fill(self, text: str, value_of: Callable[[str], str]) -> str:
        """Put values in. `value_of` gets a placeholder's key."""
        return self._pattern.sub(lambda found: value_of(found[1]), text) if self.mark in text else text


def placeholder(mark: str, *key: str) -> str:
    """Return a text that JSON, HTML and URLs leave unchanged."""
    return f'{mark}_{"-".join(key)}_'


def signature(mark: str, algorithm: str, encoding: str, over: str, secret: str) -> str:
    """Return the placeholder of an HMAC. Raises RenderError."""
    for value, known in ((algorithm, ALGORITHMS), (encoding, ENCODINGS), (over, SIGNED), (secret, SECRETS)):
        if value not in known:
            raise RenderError(f'hmac() knows {", ".join(known)}, but not {value}')
    return placeholder(mark, 'hmac', algorithm, encoding, over, secret)

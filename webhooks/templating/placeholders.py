"""Makes placeholders in templates for signatures and credentials, which no template may see.

The sender fills them in after rendering.
"""

import re
from collections.abc import Callable
from secrets import token_hex

from .errors import RenderError

# The values that hmac() takes in templates.
ALGORITHMS = ('sha1', 'sha256', 'sha512')
ENCODINGS = ('hex', 'base64')
SIGNED = ('body', 'timestamp.body')
# old: the previous secret while it is valid, else the new one.
SECRETS = ('old', 'new')
# The values of credentials that templates may use.
CREDENTIAL_VALUES = ('token', 'username', 'password')
# A pattern of the keys of placeholders.
_OF_CREDENTIAL, *_OF_HMAC = (
    f'(?:{"|".join(map(re.escape, values))})' for values in (CREDENTIAL_VALUES, ALGORITHMS, ENCODINGS, SIGNED, SECRETS)
)
KEY = f'credential-{_OF_CREDENTIAL}|hmac-{"-".join(_OF_HMAC)}'
# The context's name for the mark. It is no name in Jinja, so hmac() finds it and no template does.
MARK_NAME = ' mark'


class Placeholders:
    """The placeholders of a request. Nobody can guess `mark`, so no object's name can fake a placeholder."""

    def __init__(self) -> None:
        self.mark = f'w{token_hex(16)}'
        # A template can cut the mark out of a credential's placeholder. Behind it, a text that is no key stays a text.
        self._pattern = re.compile(f'{self.mark}_({KEY})_')

    def fill(self, text: str, value_of: Callable[[str], str]) -> str:
        """Return the text with placeholders replaced. `value_of` gets each key, such as "hmac-sha256-hex-body-old"."""
        return self._pattern.sub(lambda found: value_of(found[1]), text) if self.mark in text else text


def placeholder(mark: str, *key: str) -> str:
    """Return the placeholder for a key, in characters that JSON, HTML and URLs leave unchanged."""
    return f'{mark}_{"-".join(key)}_'


def signature(mark: str, algorithm: str, encoding: str, over: str, secret: str) -> str:
    """Return the placeholder of a signature, for hmac() in a template. Raises RenderError for unknown values."""
    for value, known in ((algorithm, ALGORITHMS), (encoding, ENCODINGS), (over, SIGNED), (secret, SECRETS)):
        if value not in known:
            raise RenderError(f'hmac() knows {", ".join(known)}, but not {value}')
    return placeholder(mark, 'hmac', algorithm, encoding, over, secret)

"""Secrets at rest: encrypted with the setting `encryption_keys`, or with a key derived from SECRET_KEY.

Fernet of the `cryptography` package, which NetBox itself depends on: authenticated, and MultiFernet gives the rotation
that operators know, the first key encrypts and all decrypt.
"""

import base64
import hashlib

from cryptography.fernet import Fernet, InvalidToken, MultiFernet
from django.conf import settings

from .. import conf
from ..exceptions import DecryptionError

PURPOSE = b'netbox-webhooks secrets at rest v1'


def encrypt(text: str) -> str:
    """Return a Fernet token of the text, made with the first key. No two tokens are the same."""
    return _box().encrypt(text.encode()).decode()


def decrypt(token: str) -> str:
    """Return what was encrypted. Raises DecryptionError where none of the keys fits."""
    try:
        return _box().decrypt(token.encode()).decode()
    except InvalidToken:
        raise DecryptionError('it was encrypted with a key that is not among encryption_keys') from None


def _box() -> MultiFernet:
    keys = conf.get().encryption_keys or (settings.SECRET_KEY,)
    return MultiFernet([Fernet(_derive(key)) for key in keys])


def _derive(key: str) -> bytes:
    # The keys are long and random, so one keyed hash is enough: nothing here is a password.
    digest = hashlib.blake2b(PURPOSE, key=hashlib.sha512(key.encode()).digest(), digest_size=32).digest()
    return base64.urlsafe_b64encode(digest)

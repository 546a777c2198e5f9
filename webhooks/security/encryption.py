"""Encrypts and decrypts secrets for columns and sessions.

The keys are the setting `encryption_keys`, or one key that is derived from SECRET_KEY.
"""

import base64
import hashlib

from cryptography.fernet import Fernet, InvalidToken, MultiFernet
from django.conf import settings
from django.utils.translation import gettext as _

from .. import conf
from ..exceptions import DecryptionError

# Part of each key, so it must never change: with another purpose no stored secret could be decrypted.
PURPOSE = b'netbox-webhooks secrets at rest v1'


def encrypt(text: str) -> str:
    """Return `text` as a Fernet token, encrypted with the first key."""
    return _box().encrypt(text.encode()).decode()


def decrypt(token: str) -> str:
    """Return the text of a Fernet token. Tries each key, and raises DecryptionError if none fits."""
    try:
        return _box().decrypt(token.encode()).decode()
    except InvalidToken:
        raise DecryptionError(_('its key has changed (encryption_keys or SECRET_KEY)')) from None


def _box() -> MultiFernet:
    keys = conf.get().encryption_keys or (settings.SECRET_KEY,)
    return MultiFernet([Fernet(_derive(key)) for key in keys])


def _derive(key: str) -> bytes:
    # One hash is enough: keys are long and random.
    digest = hashlib.blake2b(PURPOSE, key=hashlib.sha512(key.encode()).digest(), digest_size=32).digest()
    return base64.urlsafe_b64encode(digest)

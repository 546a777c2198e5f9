"""Makes secrets, and signs requests by Standard Webhooks 1.0.0, "Signature scheme".

v1 is HMAC-SHA256; v1a is ed25519 with a `whsk_` key. `X-Hook-Signature` is NetBox's own.
"""

import base64
import hashlib
import hmac
from collections.abc import Iterable
from secrets import token_bytes

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from django.utils.translation import gettext as _

# Prefixes of a shared secret, of a private and of a public key.
SYMMETRIC = 'whsec_'
PRIVATE = 'whsk_'
PUBLIC = 'whpk_'
# Standard Webhooks bounds the key of a shared secret.
MIN_KEY_BYTES = 24
MAX_KEY_BYTES = 64
# An ed25519 private key. A public key is as long.
SEED_BYTES = 32


def generate(prefix: str = SYMMETRIC) -> str:
    """Return a new random secret: `whsec_…`, or with the prefix PRIVATE `whsk_…` for asymmetric signatures."""
    return prefix + base64.b64encode(token_bytes(SEED_BYTES)).decode()


def check(secret: str) -> None:
    """Raise ValueError, with the reason, if the secret cannot sign.

    That is a `whsec_` or `whsk_` key that is not base64 or has a wrong length. Any other text can sign.
    """
    if is_asymmetric(secret):
        _private_key(secret)
    else:
        _symmetric_key(secret)


def is_asymmetric(secret: str) -> bool:
    """Return whether the secret is an ed25519 key, `whsk_…`: receivers then verify with its public key."""
    return secret.startswith(PRIVATE)


def public_key(secret: str) -> str:
    """Return `whpk_<base64>`, the public key of a `whsk_` secret. Raises ValueError for a wrong key."""
    key = _private_key(secret).public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
    return PUBLIC + base64.b64encode(key).decode()


def standard(secrets: Iterable[str], delivery_id: str, timestamp: int, body: bytes) -> str:
    """Return the value of `webhook-signature`: one signature for each secret, separated by spaces.

    Each signs "delivery_id.timestamp.body". `timestamp` is in Unix seconds. Raises ValueError for a wrong key.
    """
    signed = b'%s.%d.%s' % (delivery_id.encode(), timestamp, body)
    return ' '.join(_signature(secret, signed) for secret in secrets)


def netbox(secret: str, body: bytes) -> str:
    """Return the value of `X-Hook-Signature`, as NetBox's own webhooks have it: the hex HMAC-SHA512 of the body.

    The key is the whole secret, prefix included.
    """
    return hmac.new(secret.encode(), body, hashlib.sha512).hexdigest()


def plain(secret: str, signed: bytes, algorithm: str, encoding: str) -> str:
    """Return the HMAC of `signed` as hex or base64, for hmac() in a header's template.

    The key is the whole secret, prefix included. `algorithm` is a name of hashlib, such as sha256.
    """
    digest = hmac.digest(secret.encode(), signed, algorithm)
    return digest.hex() if encoding == 'hex' else base64.b64encode(digest).decode()


def _signature(secret: str, signed: bytes) -> str:
    if is_asymmetric(secret):
        return f'v1a,{base64.b64encode(_private_key(secret).sign(signed)).decode()}'
    digest = hmac.new(_symmetric_key(secret), signed, hashlib.sha256).digest()
    return f'v1,{base64.b64encode(digest).decode()}'


def _symmetric_key(secret: str) -> bytes:
    """Return the bytes that `whsec_<base64>` encodes, or any other secret as UTF-8.

    Raises ValueError for a wrong key.
    """
    if not secret.startswith(SYMMETRIC):
        return secret.encode()
    key = _decode(secret, SYMMETRIC)
    if not MIN_KEY_BYTES <= len(key) <= MAX_KEY_BYTES:
        reason = _('the key after {prefix} must have {least} to {most} bytes, but has {length}')
        raise ValueError(reason.format(prefix=SYMMETRIC, least=MIN_KEY_BYTES, most=MAX_KEY_BYTES, length=len(key)))
    return key


def _private_key(secret: str) -> Ed25519PrivateKey:
    """Return the key of `whsk_<base64>`: the base64 of a seed, or of a seed and its public key.

    Raises ValueError for a wrong key.
    """
    key = _decode(secret, PRIVATE)
    if len(key) not in (SEED_BYTES, 2 * SEED_BYTES):
        reason = _('the key after {prefix} must have {seed} or {pair} bytes, but has {length}')
        raise ValueError(reason.format(prefix=PRIVATE, seed=SEED_BYTES, pair=2 * SEED_BYTES, length=len(key)))
    return Ed25519PrivateKey.from_private_bytes(key[:SEED_BYTES])


def _decode(secret: str, prefix: str) -> bytes:
    try:
        return base64.b64decode(secret.removeprefix(prefix), validate=True)
    except ValueError as error:
        raise ValueError(_('the key after {prefix} must be base64').format(prefix=prefix)) from error

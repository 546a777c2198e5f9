"""Signs requests by Standard Webhooks 1.0.0, "Signature scheme".

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

SYMMETRIC, PRIVATE, PUBLIC = 'whsec_', 'whsk_', 'whpk_'
MIN_KEY, MAX_KEY = 24, 64
SEED = 32


def generate(prefix: str = SYMMETRIC) -> str:
    """Return a random `whsec_…`, or `whsk_…` for asymmetric signatures."""
    return prefix + base64.b64encode(token_bytes(SEED)).decode()


def check(secret: str) -> None:
    """Raises ValueError."""
    if is_asymmetric(secret):
        _private_key(secret)
    else:
        _symmetric_key(secret)


def is_asymmetric(secret: str) -> bool:
    return secret.startswith(PRIVATE)


def public_key(secret: str) -> str:
    """Return `whpk_<base64>`. Raises ValueError."""
    key = _private_key(secret).public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
    return PUBLIC + base64.b64encode(key).decode()


def standard(secrets: Iterable[str], delivery_id: str, timestamp: int, body: bytes) -> str:
    """Return `webhook-signature`: signatures separated by spaces. `timestamp` is in Unix seconds. Raises ValueError."""
    signed = b'%s.%d.%s' % (delivery_id.encode(), timestamp, body)
    return ' '.join(_signature(secret, signed) for secret in secrets)


def netbox(secret: str, body: bytes) -> str:
    """Return `X-Hook-Signature`: hex HMAC-SHA512 under the whole secret."""
    return hmac.new(secret.encode(), body, hashlib.sha512).hexdigest()


def plain(secret: str, signed: bytes, algorithm: str, encoding: str) -> str:
    """In hex or base64, under the whole secret."""
    digest = hmac.digest(secret.encode(), signed, algorithm)
    return digest.hex() if encoding == 'hex' else base64.b64encode(digest).decode()


def _signature(secret: str, signed: bytes) -> str:
    if is_asymmetric(secret):
        return f'v1a,{base64.b64encode(_private_key(secret).sign(signed)).decode()}'
    digest = hmac.new(_symmetric_key(secret), signed, hashlib.sha256).digest()
    return f'v1,{base64.b64encode(digest).decode()}'


def _symmetric_key(secret: str) -> bytes:
    """Secrets other than `whsec_<base64>` are used as UTF-8."""
    if not secret.startswith(SYMMETRIC):
        return secret.encode()
    key = _decode(secret, SYMMETRIC)
    if not MIN_KEY <= len(key) <= MAX_KEY:
        reason = _('the key after {prefix} must have {least} to {most} bytes, but has {length}')
        raise ValueError(reason.format(prefix=SYMMETRIC, least=MIN_KEY, most=MAX_KEY, length=len(key)))
    return key


def _private_key(secret: str) -> Ed25519PrivateKey:
    """The seed, or the seed and the public key."""
    key = _decode(secret, PRIVATE)
    if len(key) not in (SEED, 2 * SEED):
        reason = _('the key after {prefix} must have {seed} or {pair} bytes, but has {length}')
        raise ValueError(reason.format(prefix=PRIVATE, seed=SEED, pair=2 * SEED, length=len(key)))
    return Ed25519PrivateKey.from_private_bytes(key[:SEED])


def _decode(secret: str, prefix: str) -> bytes:
    try:
        return base64.b64decode(secret.removeprefix(prefix), validate=True)
    except ValueError as error:
        raise ValueError(_('the key after {prefix} must be base64').format(prefix=prefix)) from error

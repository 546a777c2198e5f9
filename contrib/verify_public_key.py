"""Verifies requests of a webhook with a pair of keys: `verify(public_key, headers, body)`. Needs `cryptography`."""

import base64
import time

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

TOLERANCE = 300  # seconds


def verify(public_key: str, headers, body: bytes) -> bool:
    """`public_key` is on the webhook's page: `whpk_…`."""
    timestamp = headers.get('webhook-timestamp', '')
    if not timestamp.isdecimal() or abs(time.time() - int(timestamp)) > TOLERANCE:
        return False
    key = Ed25519PublicKey.from_public_bytes(base64.b64decode(public_key.removeprefix('whpk_')))
    signed = f'{headers.get("webhook-id")}.{timestamp}.'.encode() + body
    return any(_is_of(key, one, signed) for one in headers.get('webhook-signature', '').split())


def _is_of(key: Ed25519PublicKey, versioned: str, signed: bytes) -> bool:
    version, _, signature = versioned.partition(',')
    if version != 'v1a':
        return False
    try:
        key.verify(base64.b64decode(signature), signed)
    except (InvalidSignature, ValueError):
        return False
    return True

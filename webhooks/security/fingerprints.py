"""Fingerprints of secret values: tools see that a value is no longer the one they have set, and not the value."""

from collections.abc import Iterable, Mapping

from django.db.models import Model
from django.utils.crypto import salted_hmac

from ..exceptions import DecryptionError

# Part of each fingerprint: with another salt all would change.
SALT = 'netbox-webhooks fingerprints v1'
FINGERPRINT_CHARS = 16


def of(instance: Model, names: Iterable[str]) -> Mapping[str, str | None]:
    """Return the fingerprints of these sealed fields: '' for an empty value, None if it cannot be decrypted."""
    return {name: _of(instance, name) for name in names}


def fingerprint(instance: Model, name: str, text: str) -> str:
    """Return the fingerprint that the field has with this value, '' if the value is empty.

    The key is NetBox's SECRET_KEY. Object and field count too, so equal values elsewhere have other fingerprints.
    """
    value = f'{instance._meta.label_lower}:{instance.pk}:{name}:{text}'
    return salted_hmac(SALT, value, algorithm='sha256').hexdigest()[:FINGERPRINT_CHARS] if text else ''


def _of(instance: Model, name: str) -> str | None:
    try:
        return fingerprint(instance, name, getattr(instance, name).reveal())
    except DecryptionError:
        return None

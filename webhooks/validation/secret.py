"""Checks a webhook's secret, and decrypts stored values for other checks."""

import re
from typing import Any

from django.utils.translation import gettext as _

from ..constants import MAX_SIGNING_SECRET_CHARS
from ..exceptions import DecryptionError, DefinitionError
from ..security import references, signing
from ..security.masking import MASK
from ..security.references import SecretUnavailable
from .definition import Definition

# A template that calls hmac().
HMAC_CALL = re.compile(r'\{[{%][^{}]*\bhmac *\(')


def check(definition: Definition) -> None:
    """Raise DefinitionError unless the secret can sign as the webhook asks."""
    secret = reveal('secret', definition.secret)
    if definition.has_new_secret:
        _check_new(secret)
    if references.is_reference(secret):
        check_reference('secret', secret)
        return
    if HMAC_CALL.search(reveal('additional_headers', definition.additional_headers)):
        check_signs(secret)
    try:
        signing.check(secret)
    except ValueError as error:
        raise DefinitionError('secret', _('Invalid secret: {error}.').format(error=error)) from None


def _check_new(secret: str) -> None:
    """Raise DefinitionError if the secret that was entered is a mask or too long. A stored one may be longer."""
    if secret == MASK:
        raise DefinitionError('secret', _('Enter the secret itself, or leave it blank to keep the stored one.'))
    if len(secret) > MAX_SIGNING_SECRET_CHARS:
        raise DefinitionError(
            'secret', _('A secret can have no more than {number} characters.').format(number=MAX_SIGNING_SECRET_CHARS)
        )


def check_reference(field: str, text: str) -> None:
    """Raise DefinitionError for `field` if the text is a reference that the settings do not allow to read."""
    if not references.is_reference(text):
        return
    try:
        references.check(text)
    except SecretUnavailable as error:
        reason = _('The settings do not allow this reference. {error}').format(error=error)
        raise DefinitionError(field, reason) from None


def merge_secret(text: str, stored: Any) -> Any:
    """Return the stored secret if `text` is its mask, else `text`. A mask without a stored secret is refused later."""
    return stored if text == MASK and stored else text


def check_signs(secret: str) -> None:
    """Raise DefinitionError unless hmac() in a header's template can use the secret."""
    if not secret or signing.is_asymmetric(secret):
        raise DefinitionError('secret', _('Enter a secret without whsk_: hmac() in a header needs it.'))


def reveal(field: str, sealed: Any) -> str:
    """Return the text of a sealed value or a masked URL. A plain text, such as a draft's URL, comes back unchanged.

    Raises DefinitionError for `field` if it cannot be decrypted.
    """
    try:
        return sealed if type(sealed) is str else sealed.reveal()
    except DecryptionError as error:
        raise DefinitionError(
            field, _('The stored value cannot be decrypted: {error}. Enter the value again.').format(error=error)
        ) from None

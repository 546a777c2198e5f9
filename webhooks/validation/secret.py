"""Checks that what is stored encrypted can be read, and that the secret can sign."""

from typing import Any

from django.utils.translation import gettext as _

from ..exceptions import DecryptionError, DefinitionError
from ..security import signing
from .definition import Definition


def check(definition: Definition) -> None:
    """Raise DefinitionError for a secret that cannot be decrypted, or cannot sign."""
    try:
        signing.check(reveal('secret', definition.secret))
    except ValueError as error:
        raise DefinitionError('secret', _('Invalid secret: {error}.').format(error=error)) from None


def reveal(field: str, sealed: Any) -> str:
    """Return the text of a sealed field. Raises DefinitionError where it cannot be decrypted."""
    try:
        return sealed.reveal()
    except DecryptionError as error:
        raise DefinitionError(
            field, _('The stored value cannot be decrypted ({error}): enter it anew.').format(error=error)
        ) from None

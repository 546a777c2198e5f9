"""A text column that is encrypted at rest and masked wherever it is shown."""

from typing import Any

from django.db import models
from django.db.models.query_utils import DeferredAttribute

from ..crypto import MASK, decrypt, encrypt


class Sealed:
    """An encrypted text. It shows itself as a mask; `reveal()` gives the text.

    Templates (export templates, Jinja) receive model instances, so the text must not be an attribute: `reveal` is
    marked `alters_data`, which Django's templates and NetBox's Jinja sandbox refuse to call.
    """

    def __init__(self, token: str):
        self._token = token
        self._text: str | None = None

    @classmethod
    def of(cls, value: 'Sealed | str | None') -> 'Sealed':
        if isinstance(value, Sealed):
            return value
        return cls(encrypt(value) if value else '')

    def reveal(self) -> str:
        """Return the text, '' if there is none. Raises DecryptionError."""
        if self._text is None:
            self._text = decrypt(self._token) if self._token else ''
        return self._text

    reveal.alters_data = True

    def __bool__(self) -> bool:
        return bool(self._token)

    def __str__(self) -> str:
        return MASK if self else ''

    __repr__ = __str__

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sealed) and other._token == self._token

    def __hash__(self) -> int:
        return hash(self._token)


class SealedAttribute(DeferredAttribute):
    """Whatever is assigned becomes Sealed at once, so that no instance carries the text."""

    def __set__(self, instance: models.Model, value: Any) -> None:
        instance.__dict__[self.field.attname] = Sealed.of(value)


class SealedField(models.TextField):
    descriptor_class = SealedAttribute

    def from_db_value(self, value: str | None, expression: Any, connection: Any) -> Sealed:
        return Sealed(value or '')

    def to_python(self, value: Any) -> Sealed:
        return Sealed.of(value)

    def get_prep_value(self, value: Any) -> str:
        return Sealed.of(value)._token

    def value_to_string(self, obj: models.Model) -> str:
        return str(self.value_from_object(obj))

"""Text columns that are masked wherever they are shown: one encrypted at rest, and the URL."""

import hashlib
from typing import Any

from django import forms
from django.db import models
from django.db.models.query_utils import DeferredAttribute

from ..security.encryption import decrypt, encrypt
from ..security.masking import MASK, mask_template, whole_url


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
        """Return a text encrypted, a Sealed as it is; an empty one for None and the empty text."""
        if isinstance(value, Sealed):
            return value
        return cls(encrypt(value) if value else '')

    def reveal(self) -> str:
        """Return the text, '' if there is none. Raises DecryptionError."""
        if self._text is None:
            self._text = decrypt(self._token) if self._token else ''
        return self._text

    reveal.alters_data = True

    @property
    def stamp(self) -> str:
        """Differs once another text is stored, and says nothing of it: tokens are random."""
        return hashlib.sha256(self._token.encode()).hexdigest()[:8] if self else ''

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
    """A column that holds a Fernet token, and gives a Sealed."""

    descriptor_class = SealedAttribute

    def from_db_value(self, value: str | None, expression: Any, connection: Any) -> Sealed:
        """Return the token of the column as a Sealed, not decrypted yet."""
        return Sealed(value or '')

    def to_python(self, value: Any) -> Sealed:
        """Return a text encrypted, a Sealed as it is."""
        return Sealed.of(value)

    def get_prep_value(self, value: Any) -> str:
        """Return the token that is stored."""
        return Sealed.of(value)._token

    def value_to_string(self, obj: models.Model) -> str:
        """Return the mask: serialized data hold no secret."""
        return str(self.value_from_object(obj))


class MaskedUrl(str):
    """A URL that is, as a text, what may be shown of it. `reveal()` gives the whole, and no template may call it."""

    _url: str

    @classmethod
    def of(cls, url: str) -> 'MaskedUrl':
        """Return a URL, which may hold templates, as one that shows itself masked."""
        if isinstance(url, MaskedUrl):
            return url
        masked = cls(mask_template(url))
        masked._url = url
        return masked

    def reveal(self) -> str:
        """Return the whole URL, with user, password and query."""
        return self._url

    reveal.alters_data = True


class UrlAttribute(DeferredAttribute):
    """As with SealedAttribute: whoever reads an instance reads what may be shown."""

    def __set__(self, instance: models.Model, value: Any) -> None:
        instance.__dict__[self.field.attname] = MaskedUrl.of(value) if isinstance(value, str) else value


class UrlField(models.CharField):
    """A column that holds the whole URL, and gives a MaskedUrl."""

    descriptor_class = UrlAttribute

    def from_db_value(self, value: str | None, expression: Any, connection: Any) -> MaskedUrl | None:
        """Return the URL of the column as a MaskedUrl."""
        return value if value is None else MaskedUrl.of(value)

    def get_prep_value(self, value: Any) -> Any:
        """Return the whole URL, which is stored."""
        return super().get_prep_value(whole_url(value))

    def clean(self, value: Any, model_instance: models.Model | None) -> Any:
        """Check the length of the whole, not that of the masked text."""
        return super().clean(whole_url(value), model_instance)

    def formfield(self, **kwargs) -> forms.Field | None:
        """Without a limit of its own: the masked text, which comes back, may be longer than the whole."""
        return super().formfield(**{'max_length': None} | kwargs)

    def deconstruct(self) -> tuple:
        """To migrations it is the column that it is."""
        name, _path, args, kwargs = super().deconstruct()
        return name, 'django.db.models.CharField', args, kwargs

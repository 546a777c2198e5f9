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
    # False: it is as it was stored.
    is_entered: bool

    @classmethod
    def of(cls, url: str, *, hides_path: bool = False, is_entered: bool = True) -> 'MaskedUrl':
        """Return a URL, which may hold templates, as one that shows itself masked."""
        masked = cls(mask_template(url, hides_path))
        masked._url, masked.is_entered = url, is_entered
        return masked

    def reveal(self) -> str:
        """Return the whole URL, with user, password and query."""
        return self._url

    reveal.alters_data = True


def _as_shown(url: MaskedUrl, hides_path: bool) -> MaskedUrl:
    # No method: templates could call it.
    return MaskedUrl.of(url.reveal(), hides_path=hides_path, is_entered=url.is_entered)


class UrlAttribute(DeferredAttribute):
    """As with SealedAttribute: an instance gives the text that may be shown. Its `secret_path` decides on the path."""

    def __get__(self, instance: models.Model | None, cls: type | None = None) -> Any:
        value = super().__get__(instance, cls)
        return _as_shown(value, instance.secret_path) if isinstance(value, MaskedUrl) else value

    def __set__(self, instance: models.Model, value: Any) -> None:
        is_plain = isinstance(value, str) and not isinstance(value, MaskedUrl)
        instance.__dict__[self.field.attname] = MaskedUrl.of(value) if is_plain else value


class UrlField(models.CharField):
    """A column that holds the whole URL, and gives a MaskedUrl."""

    descriptor_class = UrlAttribute

    def from_db_value(self, value: str | None, expression: Any, connection: Any) -> MaskedUrl | None:
        """Return the URL of the column as a MaskedUrl. Without an instance nobody knows whether its path is secret."""
        return value if value is None else MaskedUrl.of(value, hides_path=True, is_entered=False)

    def get_prep_value(self, value: Any) -> Any:
        """Return the whole URL, which is stored."""
        return super().get_prep_value(whole_url(value))

    def clean(self, value: Any, model_instance: models.Model | None) -> Any:
        """Check the length of the whole, not that of the masked text."""
        checked = super().clean(whole_url(value), model_instance)
        return value if isinstance(value, MaskedUrl) else checked

    def formfield(self, **kwargs) -> forms.Field | None:
        """Without a limit of its own: the masked text, which comes back, may be longer than the whole."""
        return super().formfield(**{'max_length': None} | kwargs)

    def deconstruct(self) -> tuple:
        """To migrations it is the column that it is."""
        name, _path, args, kwargs = super().deconstruct()
        return name, 'django.db.models.CharField', args, kwargs

"""Columns whose values are secret: encrypted texts, and URLs that are masked when shown."""

import hashlib
from typing import Any

from django import forms
from django.db import models
from django.db.models.query_utils import DeferredAttribute

from ..security.encryption import decrypt, encrypt
from ..security.masking import MASK, mask_template, whole_url


class Sealed:
    """An encrypted text. It shows as a mask, and two are equal if their tokens are.

    `alters_data` keeps templates from calling `reveal`.
    """

    def __init__(self, token: str):
        self._token = token
        self._text: str | None = None

    @classmethod
    def of(cls, value: 'Sealed | str | None') -> 'Sealed':
        """Encrypt a text. A Sealed comes back unchanged; '' and None become an empty one."""
        if isinstance(value, Sealed):
            return value
        return cls(encrypt(value) if value else '')

    def reveal(self) -> str:
        """Return the decrypted text, '' if it is empty. Raises DecryptionError if no key of the settings fits."""
        if self._text is None:
            self._text = decrypt(self._token) if self._token else ''
        return self._text

    reveal.alters_data = True

    @property
    def stamp(self) -> str:
        """Eight hex digits that change when the text is entered anew, and reveal nothing. '' if it is empty."""
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
    """Seals each value that is assigned to the column. So no instance carries the plain text."""

    def __set__(self, instance: models.Model, value: Any) -> None:
        instance.__dict__[self.field.attname] = Sealed.of(value)


class SealedField(models.TextField):
    """A text column that is encrypted in PostgreSQL. Instances have a Sealed."""

    descriptor_class = SealedAttribute

    def from_db_value(self, value: str | None, expression: Any, connection: Any) -> Sealed:
        """Wrap the stored token. Nothing is decrypted."""
        return Sealed(value or '')

    def to_python(self, value: Any) -> Sealed:
        """Return a Sealed of a text, a Sealed or None."""
        return Sealed.of(value)

    def get_prep_value(self, value: Any) -> str:
        """Return the encrypted token to store, '' for an empty value."""
        return Sealed.of(value)._token

    def value_to_string(self, obj: models.Model) -> str:
        """Return the mask, for serializers such as `dumpdata`: a fixture has no secret."""
        return str(self.value_from_object(obj))


class MaskedUrl(str):
    """A URL that is a string with its secrets masked. Only `reveal` has them."""

    _url: str
    # False: read from the database.
    is_entered: bool

    @classmethod
    def of(cls, url: str, *, hides_path: bool = False, is_entered: bool = True) -> 'MaskedUrl':
        """Mask the secrets in a URL; with `hides_path` also its path.

        `is_entered`: a user entered it, it was not read from a row.
        """
        masked = cls(mask_template(url, hides_path))
        masked._url, masked.is_entered = url, is_entered
        return masked

    def reveal(self) -> str:
        """Return the whole URL."""
        return self._url

    reveal.alters_data = True


def _as_shown(url: MaskedUrl, hides_path: bool) -> MaskedUrl:
    # A function of the module, because users' templates could call a method.
    return MaskedUrl.of(url.reveal(), hides_path=hides_path, is_entered=url.is_entered)


class UrlAttribute(DeferredAttribute):
    """Wraps plain strings on assignment, and masks on reading, by the webhook's present `secret_path`."""

    def __get__(self, instance: models.Model | None, cls: type | None = None) -> Any:
        value = super().__get__(instance, cls)
        return _as_shown(value, instance.secret_path) if isinstance(value, MaskedUrl) else value

    def __set__(self, instance: models.Model, value: Any) -> None:
        is_plain = isinstance(value, str) and not isinstance(value, MaskedUrl)
        instance.__dict__[self.field.attname] = MaskedUrl.of(value) if is_plain else value


class UrlField(models.CharField):
    """A URL column. Instances have a MaskedUrl, PostgreSQL has the whole URL."""

    descriptor_class = UrlAttribute

    def from_db_value(self, value: str | None, expression: Any, connection: Any) -> MaskedUrl | None:
        """Wrap the stored URL with its path masked.

        UrlAttribute shows the path later: only an instance knows `secret_path`.
        """
        return value if value is None else MaskedUrl.of(value, hides_path=True, is_entered=False)

    def get_prep_value(self, value: Any) -> Any:
        """Return the whole URL to store."""
        return super().get_prep_value(whole_url(value))

    def clean(self, value: Any, model_instance: models.Model | None) -> Any:
        """Validate the whole URL, not its mask. Return a MaskedUrl as it came. Raises ValidationError."""
        checked = super().clean(whole_url(value), model_instance)
        return value if isinstance(value, MaskedUrl) else checked

    def formfield(self, **kwargs) -> forms.Field | None:
        """Return the form's field without a maximum length, for the mask may be longer than the URL."""
        return super().formfield(**{'max_length': None} | kwargs)

    def deconstruct(self) -> tuple:
        """Return it as a CharField, so that migrations know nothing of this class."""
        name, _path, args, kwargs = super().deconstruct()
        return name, 'django.db.models.CharField', args, kwargs

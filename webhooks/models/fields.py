"""Columns whose values are secret: encrypted texts, and URLs that are masked when shown."""

import hashlib
from typing import Any

from django import forms
from django.db import models
from django.db.models.query_utils import DeferredAttribute

from ..exceptions import DecryptionError
from ..security.encryption import decrypt, encrypt
from ..security.masking import MASK, mask_template

# Between a masked URL and the sealed one in a column. 1.0.0 reads it as a fragment, which it neither shows nor sends.
SEALED_MARK = '#sealed:'


class Sealed:
    """An encrypted text. It shows as a mask, and two are equal if their tokens are.

    `alters_data` keeps templates from calling the methods that reveal it.
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

    def reveal_or_blank(self) -> str:
        """Return the decrypted text, '' if it is empty or no key of the settings fits."""
        try:
            return self.reveal()
        except DecryptionError:
            return ''

    reveal_or_blank.alters_data = True

    @property
    def stamp(self) -> str:
        """Return eight hex digits that change when the text is entered anew, and reveal nothing. '' if it is empty."""
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

    _whole: Sealed | str
    # False: read from the database.
    is_entered: bool

    @classmethod
    def of(cls, url: str) -> 'MaskedUrl':
        """Mask the secrets in a URL that somebody has entered."""
        return cls._make(mask_template(url), url, is_entered=True)

    @classmethod
    def stored(cls, text: str) -> 'MaskedUrl':
        """Read the text of a column: a URL without secrets, or a masked one and the sealed one after SEALED_MARK.

        A URL of 1.0.0 is whole, until `stored_urls.seal` seals it.
        """
        masked, _mark, token = text.rpartition(SEALED_MARK)
        if MASK in masked:
            return cls._make(masked, Sealed(token), is_entered=False)
        return cls._make(mask_template(text), text, is_entered=False)

    @classmethod
    def _make(cls, shown: str, whole: Sealed | str, *, is_entered: bool) -> 'MaskedUrl':
        made = cls(shown)
        made._whole, made.is_entered = whole, is_entered
        return made

    def reveal(self) -> str:
        """Return the whole URL. Raises DecryptionError if it is sealed and no key of the settings fits."""
        return self._whole.reveal() if isinstance(self._whole, Sealed) else self._whole

    reveal.alters_data = True


# Functions of the module, because users' templates could call methods.


def _as_shown(url: MaskedUrl, hides_path: bool) -> MaskedUrl:
    """Return the same URL with its path shown or masked. Parts that are masked in a stored URL stay masked."""
    if not isinstance(url._whole, Sealed):
        shown = mask_template(url._whole, hides_path)
    else:
        shown = mask_template(str(url), hides_path) if hides_path else str(url)
    return MaskedUrl._make(shown, url._whole, is_entered=url.is_entered)


def _as_stored(url: MaskedUrl) -> str:
    """Return the text of the column. A URL is sealed if its mask hides something."""
    if MASK not in url:
        return url.reveal()
    return f'{url}{SEALED_MARK}{Sealed.of(url._whole)._token}'


def as_stored(url: str, hides_path: bool = False) -> str:
    """Return the text of a column for a whole URL, or for such a text itself."""
    stored = MaskedUrl.stored(url)
    return url if isinstance(stored._whole, Sealed) else _as_stored(_as_shown(stored, hides_path))


class UrlAttribute(DeferredAttribute):
    """Wraps plain strings on assignment, and masks on reading, by the webhook's present `secret_path`."""

    def __get__(self, instance: models.Model | None, cls: type | None = None) -> Any:
        value = super().__get__(instance, cls)
        return _as_shown(value, instance.secret_path) if isinstance(value, MaskedUrl) else value

    def __set__(self, instance: models.Model, value: Any) -> None:
        is_plain = isinstance(value, str) and not isinstance(value, MaskedUrl)
        instance.__dict__[self.field.attname] = MaskedUrl.of(value) if is_plain else value


class UrlField(models.CharField):
    """A URL column. Instances have a MaskedUrl. PostgreSQL has the masked URL too, and the sealed one behind it.

    `max_length` is that of the whole URL. Lookups find the masked one.
    """

    descriptor_class = UrlAttribute

    def get_internal_type(self) -> str:
        """Return the type of the column: a mask may be longer than the masked text."""
        return 'TextField'

    def from_db_value(self, value: str | None, expression: Any, connection: Any) -> MaskedUrl | None:
        """Wrap the stored URL. Nothing is decrypted."""
        return value if value is None else MaskedUrl.stored(value)

    def pre_save(self, model_instance: models.Model, add: bool) -> Any:
        """Return the text to store. Its path is masked by the webhook's present `secret_path`."""
        value = super().pre_save(model_instance, add)
        return _as_stored(value) if isinstance(value, MaskedUrl) else value

    def get_prep_value(self, value: Any) -> Any:
        """Return the text to store, or to compare with."""
        value = super().get_prep_value(value)
        if isinstance(value, MaskedUrl):
            return _as_stored(value)
        return as_stored(value) if value else value

    def get_whole(self, value: Any) -> Any:
        """Return the whole URL, sealed if it is stored so. A URL that is sealed anew would have another text."""
        return value._whole if isinstance(value, MaskedUrl) else value

    def clean(self, value: Any, model_instance: models.Model | None) -> Any:
        """Validate an entered URL, not its mask. Return a MaskedUrl as it came. Raises ValidationError."""
        if not isinstance(value, MaskedUrl):
            return super().clean(value, model_instance)
        if value.is_entered:
            super().clean(value.reveal(), model_instance)
        return value

    def formfield(self, **kwargs) -> forms.Field | None:
        """Return the form's field without a maximum length, for the mask may be longer than the URL."""
        return super().formfield(**{'max_length': None} | kwargs)

    def deconstruct(self) -> tuple:
        """Return it as a TextField, so that migrations know nothing of this class."""
        name, _path, args, kwargs = super().deconstruct()
        kwargs.pop('max_length', None)
        return name, 'django.db.models.TextField', args, kwargs

import re
from collections.abc import Iterable, Iterator
from typing import Any

from django.conf import settings
from django.utils.translation import gettext_lazy as _
from utilities.jinja2 import HTTP_HEADER_INVALID_CHARS_RE, JINJA2_TEMPLATE_RE

from ..constants import (
    FORWARDED_HEADERS,
    FORWARDED_PREFIX,
    MAX_HEADER_VALUE,
    MAX_HEADERS,
    MAX_TEMPLATE,
    RESERVED_HEADERS,
)
from ..exceptions import DecryptionError, DefinitionError
from ..security.masking import MASK
from .definition import Definition
from .secret import reveal
from .templates import check_template

HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
# These NetBox settings name headers that identify a user.
TRUSTED_BY_NETBOX = (
    'REMOTE_AUTH_HEADER',
    'REMOTE_AUTH_GROUP_HEADER',
    'REMOTE_AUTH_USER_EMAIL',
    'REMOTE_AUTH_USER_FIRST_NAME',
    'REMOTE_AUTH_USER_LAST_NAME',
)
# Presets contain it: users must replace it.
PLACEHOLDER = '<token>'
MOVED = _(
    'You changed the host or the TLS settings. Enter the values of the headers again: stored values are not sent to '
    'another receiver.'
)


def check(definition: Definition) -> None:
    text = reveal('additional_headers', definition.additional_headers)
    if len(text) > MAX_TEMPLATE:
        reason = _('Headers can have no more than {limit} characters together.')
        raise DefinitionError('additional_headers', reason.format(limit=MAX_TEMPLATE))
    headers = list(parse_headers(text))
    for name, value in headers:
        check_header_name(name)
        if PLACEHOLDER in value:
            reason = _('{name}: replace {placeholder} with your own token.')
            raise DefinitionError('additional_headers', reason.format(name=name, placeholder=PLACEHOLDER))
        check_template('additional_headers', value)
    check_sizes((name, value) for name, value in headers if not JINJA2_TEMPLATE_RE.search(value))


def check_sizes(headers: Iterable[tuple[str, str]]) -> None:
    """Refuse headers that no web server takes: all that is in them is looked for in each answer."""
    total = 0
    for name, value in headers:
        total += len(name) + len(value)
        if len(value) > MAX_HEADER_VALUE:
            reason = _('The value of {name} has {length} characters, but no more than {limit} are possible.')
            shown = reason.format(name=name, length=len(value), limit=MAX_HEADER_VALUE)
            raise DefinitionError('additional_headers', shown)
        if total > MAX_HEADERS:
            reason = _('The headers up to {name} have {length} characters, but no more than {limit} are possible.')
            shown = reason.format(name=name, length=total, limit=MAX_HEADERS)
            raise DefinitionError('additional_headers', shown)


def parse_headers(text: str) -> Iterator[tuple[str, str]]:
    """Yield (name, value) of each line. Raises DefinitionError (RFC 9110, 5.1)."""
    for number, line in enumerate(text.replace('\r\n', '\n').split('\n'), 1):
        if line.strip():
            yield _parse_header(number, line)


def _parse_header(number: int, line: str) -> tuple[str, str]:
    name, colon, value = line.partition(':')
    name, value = name.strip(), value.strip()
    # The line may be a secret.
    if not colon:
        raise DefinitionError(
            'additional_headers',
            _('Line {number} has no colon. Write each line as "Name: value".').format(number=number),
        )
    if not HEADER_NAME.fullmatch(name):
        raise DefinitionError(
            'additional_headers', _('Line {number} does not begin with a valid header name.').format(number=number)
        )
    check_header_value(name, value)
    if _plain(name) in RESERVED_HEADERS:
        raise DefinitionError(
            'additional_headers', _('{name} is set by the plugin and cannot be changed.').format(name=name)
        )
    return name, value


def check_header_name(name: str) -> None:
    """A request to NetBox's own port could act as anyone with it."""
    plain = _plain(name)
    trusted = {*FORWARDED_HEADERS, *map(_plain, _trusted_by_netbox())}
    if plain in trusted or plain.startswith(FORWARDED_PREFIX):
        reason = _('{name} identifies a user or client, so a webhook cannot set it.')
        raise DefinitionError('additional_headers', reason.format(name=name))


def _trusted_by_netbox() -> Iterator[str]:
    yield from filter(None, (getattr(settings, name, None) for name in TRUSTED_BY_NETBOX))
    yield from getattr(settings, 'HTTP_CLIENT_IP_HEADERS', ())
    yield from (getattr(settings, 'SECURE_PROXY_SSL_HEADER', None) or ())[:1]


def _plain(name: str) -> str:
    """Web servers turn header names into variables."""
    return name.lower().replace('_', '-').removeprefix('http-')


def check_header_value(name: str, value: str, field: str = 'additional_headers') -> None:
    """RFC 9110, 5.5; http.client sends Latin-1."""
    if HTTP_HEADER_INVALID_CHARS_RE.search(value):
        raise DefinitionError(
            field, _('The value of {name} contains a control character or a line break.').format(name=name)
        )
    try:
        value.encode('latin-1')
    except UnicodeEncodeError:
        raise DefinitionError(
            field, _('The value of {name} contains a character that is not allowed in headers.').format(name=name)
        ) from None


def merge_headers(text: str, stored: Any, moved: bool = False) -> str:
    """Return `text` with stored values in place of masks.

    Raises DefinitionError for an unknown mask, or if the webhook has `moved`.
    """
    if MASK not in text:
        return text
    if moved:
        raise DefinitionError('additional_headers', MOVED)
    known = {name.lower(): value for name, value in parse_headers(reveal('additional_headers', stored))}
    return '\n'.join(f'{name}: {_unmask(name, value, known)}' for name, value in parse_headers(text))


def _unmask(name: str, value: str, known: dict[str, str]) -> str:
    if value != MASK:
        return value
    if name.lower() not in known:
        raise DefinitionError('additional_headers', _('{name} has no stored value. Enter one.').format(name=name))
    return known[name.lower()]


def mask_headers(sealed: Any) -> str:
    """Mask everything if it cannot be decrypted."""
    try:
        return '\n'.join(f'{name}: {MASK}' for name, _value in parse_headers(sealed.reveal()))
    except (DecryptionError, DefinitionError):
        return MASK

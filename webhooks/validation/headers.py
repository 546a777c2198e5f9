"""Parses, checks, masks and unmasks additional headers: lines of `Name: value`, whose values may be templates."""

import re
from collections.abc import Iterable, Iterator
from typing import Any

from django.conf import settings
from django.utils.translation import gettext_lazy as _
from utilities.jinja2 import HTTP_HEADER_INVALID_CHARS_RE, JINJA2_TEMPLATE_RE

from ..constants import (
    FORWARDED_HEADERS,
    FORWARDED_PREFIX,
    MAX_HEADER_VALUE_CHARS,
    MAX_HEADERS_CHARS,
    MAX_TEMPLATE_CHARS,
    RESERVED_HEADERS,
)
from ..exceptions import DecryptionError, DefinitionError
from ..security.masking import MASK
from .definition import Definition
from .secret import check_reference, reveal
from .templates import check_template

# RFC 9110, 5.6.2.
HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
# These NetBox settings name headers that identify a user.
TRUSTED_BY_NETBOX = (
    'REMOTE_AUTH_HEADER',
    'REMOTE_AUTH_GROUP_HEADER',
    'REMOTE_AUTH_USER_EMAIL',
    'REMOTE_AUTH_USER_FIRST_NAME',
    'REMOTE_AUTH_USER_LAST_NAME',
)
# Presets have it in place of a token. A webhook cannot be saved before a user has put a token there.
PLACEHOLDER = '<token>'
# If `is_moved`, forms and the API show this at `additional_headers`.
MOVED = _(
    'You changed the host or the TLS settings. Enter the values of the headers again: stored values are not sent to '
    'another receiver.'
)


def check(definition: Definition) -> None:
    """Raise DefinitionError unless all additional headers can be sent. Templates are checked by trial."""
    text = reveal('additional_headers', definition.additional_headers)
    if len(text) > MAX_TEMPLATE_CHARS:
        reason = _('All headers together can have no more than {limit} characters.')
        raise DefinitionError('additional_headers', reason.format(limit=MAX_TEMPLATE_CHARS))
    headers = list(parse_headers(text))
    for name, value in headers:
        check_header_name(name)
        if PLACEHOLDER in value:
            reason = _('{name}: replace {placeholder} with your own token.')
            raise DefinitionError('additional_headers', reason.format(name=name, placeholder=PLACEHOLDER))
        check_template('additional_headers', value)
        check_reference('additional_headers', value)
    check_sizes((name, value) for name, value in headers if not JINJA2_TEMPLATE_RE.search(value))


def check_sizes(headers: Iterable[tuple[str, str]]) -> None:
    """Raise DefinitionError if headers, without templates, are longer than web servers take.

    All that is in them is looked for in each answer, which costs time.
    """
    total = 0
    for name, value in headers:
        total += len(name) + len(value)
        if len(value) > MAX_HEADER_VALUE_CHARS:
            reason = _('The value of {name} has {length} characters, but no more than {limit} are allowed.')
            shown = reason.format(name=name, length=len(value), limit=MAX_HEADER_VALUE_CHARS)
            raise DefinitionError('additional_headers', shown)
        if total > MAX_HEADERS_CHARS:
            reason = _('The headers up to {name} have {length} characters, but no more than {limit} are allowed.')
            shown = reason.format(name=name, length=total, limit=MAX_HEADERS_CHARS)
            raise DefinitionError('additional_headers', shown)


def parse_headers(text: str) -> Iterator[tuple[str, str]]:
    """Yield (name, value) of each line that is not blank, stripped.

    Raises DefinitionError for a wrong name or value (RFC 9110, 5.1), and for a header that only the plugin sets.
    """
    for number, line in enumerate(text.replace('\r\n', '\n').split('\n'), 1):
        if line.strip():
            yield _parse_header(number, line)


def _parse_header(number: int, line: str) -> tuple[str, str]:
    """Return (name, value) of the line. Its number stands in errors, as the line itself may be a secret."""
    name, colon, value = line.partition(':')
    name, value = name.strip(), value.strip()
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
    """Raise DefinitionError if NetBox, or a proxy before it, would trust the header.

    A request to NetBox's own port could act as anyone with it.
    """
    plain = _plain(name)
    trusted = {*FORWARDED_HEADERS, *map(_plain, _trusted_by_netbox())}
    if plain in trusted or plain.startswith(FORWARDED_PREFIX):
        reason = _('{name} identifies a user or client, so a webhook cannot set it.')
        raise DefinitionError('additional_headers', reason.format(name=name))


def _trusted_by_netbox() -> Iterator[str]:
    """Yield the names of headers that NetBox's settings trust."""
    yield from filter(None, (getattr(settings, name, None) for name in TRUSTED_BY_NETBOX))
    yield from getattr(settings, 'HTTP_CLIENT_IP_HEADERS', ())
    yield from (getattr(settings, 'SECURE_PROXY_SSL_HEADER', None) or ())[:1]


def _plain(name: str) -> str:
    """Return the name as web servers compare it.

    They turn names into variables, such as HTTP_X_REAL_IP: then `-` and `_` are the same.
    """
    return name.lower().replace('_', '-').removeprefix('http-')


def check_header_value(name: str, value: str, field: str = 'additional_headers') -> None:
    """Raise DefinitionError for a character that a header cannot have (RFC 9110, 5.5). `name` is shown in the error.

    http.client sends Latin-1.
    """
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


def merge_headers(text: str, stored: Any, moved: bool = False) -> Any:
    """Return `text` with the stored values in place of masks: forms and API show masks only.

    If nothing differs then, `stored` itself comes back: encrypted anew, it would count as a change.

    Raises DefinitionError for a mask of an unknown header, or any mask if the webhook has `moved` to another endpoint.
    """
    if MASK not in text:
        return text
    if moved:
        raise DefinitionError('additional_headers', MOVED)
    before = list(parse_headers(reveal('additional_headers', stored)))
    known = {name.lower(): value for name, value in before}
    after = [(name, _unmask(name, value, known)) for name, value in parse_headers(text)]
    return stored if after == before else '\n'.join(f'{name}: {value}' for name, value in after)


def _unmask(name: str, value: str, known: dict[str, str]) -> str:
    if value != MASK:
        return value
    if name.lower() not in known:
        raise DefinitionError('additional_headers', _('{name} has no stored value. Enter one.').format(name=name))
    return known[name.lower()]


def mask_headers(sealed: Any) -> str:
    """Return the names of stored headers with masks for values, or one mask if they cannot be decrypted."""
    try:
        return '\n'.join(f'{name}: {MASK}' for name, _value in parse_headers(sealed.reveal()))
    except (DecryptionError, DefinitionError):
        return MASK

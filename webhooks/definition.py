"""Is a webhook's definition sound, and how is it shown without its secrets? For any object with the fields."""

import functools
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import SplitResult, urlsplit, urlunsplit

from django.conf import settings
from django.utils.translation import gettext as _
from extras.conditions import Condition, ConditionSet, InvalidCondition
from netbox.settings_utils import parse_job_timeout
from utilities.jinja2 import HTTP_HEADER_INVALID_CHARS_RE, JINJA2_TEMPLATE_RE

from . import conf, jinja, signing
from .choices import FormatChoices
from .constants import RESERVED_HEADERS
from .crypto import MASK
from .exceptions import DecryptionError, DefinitionError

HEADER_NAME = re.compile(r"^[!#$%&'*+.^_`|~0-9A-Za-z-]+$")
CONTENT_TYPE = re.compile(r'[\w!#$&^.+-]+/[\w!#$&^.+-]+(\s*;\s*[\w.-]+=("[^"\x00-\x1f]*"|[\w.+-]+))*', re.ASCII)
# jsonb takes neither.
UNSTORABLE = re.compile(r'[\x00\ud800-\udfff]')
FORM = 'application/x-www-form-urlencoded'
SCHEMES = ('http', 'https')


class Definition(Protocol):
    payload_url: str
    http_method: str
    http_content_type: str
    payload_format: str
    additional_headers: Any
    body_template: str
    conditions: Any
    secret: Any
    ssl_verification: bool
    ca_file_path: str
    client_cert_path: str
    client_key_path: str
    timeout: int | None
    kinds: list[str]


def errors(definition: Definition) -> dict[str, str]:
    """Return {field: what is wrong with it}, empty if the definition is sound."""
    found: dict[str, str] = {}
    for check in CHECKS:
        try:
            check(definition)
        except DefinitionError as error:
            found.setdefault(error.field, str(error))
    return found


#
# Headers
#


def parse_headers(text: str) -> Iterator[tuple[str, str]]:
    """Yield (name, value) of each line `Name: value`. Raises DefinitionError for a line that is none."""
    for line in text.replace('\r\n', '\n').split('\n'):
        if line.strip():
            yield _parse_header(line)


def _parse_header(line: str) -> tuple[str, str]:
    name, colon, value = line.partition(':')
    name, value = name.strip(), value.strip()
    if not colon:
        raise DefinitionError(
            'additional_headers', _('Each line is "Name: value"; {line!r} has no colon.').format(line=name[:40])
        )
    if not HEADER_NAME.match(name):
        raise DefinitionError('additional_headers', _('{name!r} is not a header name.').format(name=name[:40]))
    check_header_value(name, value)
    if name.lower() in RESERVED_HEADERS:
        raise DefinitionError(
            'additional_headers', _('{name} is set by the sender and cannot be overridden.').format(name=name)
        )
    return name, value


def check_header_value(name: str, value: str) -> None:
    """Raise DefinitionError for a value that cannot stand in a header."""
    if HTTP_HEADER_INVALID_CHARS_RE.search(value):
        raise DefinitionError(
            'additional_headers', _('The value of {name} holds a control character or a line break.').format(name=name)
        )
    try:
        value.encode('latin-1')
    except UnicodeEncodeError:
        raise DefinitionError(
            'additional_headers', _('The value of {name} holds a character that no header can.').format(name=name)
        ) from None


def merge_headers(text: str, stored: Any) -> str:
    """Return `text` with each masked value replaced by the one stored under the same name.

    This lets a form or an API client send back what it was shown. Raises DefinitionError for a mask without a value.
    """
    if MASK not in text:
        return text
    known = {name.lower(): value for name, value in parse_headers(reveal('additional_headers', stored))}
    return '\n'.join(f'{name}: {_unmask(name, value, known)}' for name, value in parse_headers(text))


def _unmask(name: str, value: str, known: dict[str, str]) -> str:
    if value != MASK:
        return value
    if name.lower() not in known:
        raise DefinitionError(
            'additional_headers', _('{name} has no stored value to keep: enter one.').format(name=name)
        )
    return known[name.lower()]


def mask_headers(sealed: Any) -> str:
    """Return the headers with masked values, or a single mask where they cannot be decrypted."""
    try:
        return '\n'.join(f'{name}: {MASK}' for name, _value in parse_headers(sealed.reveal()))
    except (DecryptionError, DefinitionError):
        return MASK


#
# URL
#


@functools.lru_cache(256)
def mask_url(url: str) -> str:
    """Return the URL with its user and the values of its query masked."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return url.partition('?')[0]
    netloc = f'{MASK}@{parts.netloc.rpartition("@")[2]}' if '@' in parts.netloc else parts.netloc
    query = '&'.join(_mask_parameter(parameter) for parameter in parts.query.split('&')) if parts.query else ''
    return urlunsplit(SplitResult(parts.scheme, netloc, parts.path, query, ''))


def _mask_parameter(parameter: str) -> str:
    name, equals, _value = parameter.partition('=')
    return f'{name}={MASK}' if equals else MASK


def merge_url(url: str, stored: str) -> str:
    """Return the stored URL where `url` is how it was shown, else `url`."""
    return stored if MASK in url and url == mask_url(stored) else url


def is_form(content_type: str) -> bool:
    """Whether the body is form-encoded."""
    return content_type.partition(';')[0].strip().lower() == FORM


#
# Checks: each raises DefinitionError for the first thing it finds.
#


def _check_kinds(definition: Definition) -> None:
    if not definition.kinds:
        raise DefinitionError('type_create', _('Choose at least one of creations, updates and deletions.'))


def _check_url(definition: Definition) -> None:
    url = definition.payload_url
    if MASK in url:
        raise DefinitionError('payload_url', _('Enter the whole URL: the part that is masked is not stored.'))
    if JINJA2_TEMPLATE_RE.search(url):
        _check_template('payload_url', url)
        scheme = re.match(r'^([a-zA-Z][a-zA-Z0-9+.-]*):', url)
        if scheme and scheme[1].lower() not in SCHEMES:
            raise DefinitionError('payload_url', _('Enter a URL that begins with http:// or https://.'))
        return
    check_plain_url(url)


def check_plain_url(url: str) -> None:
    """Raise DefinitionError unless the URL is http or https, with a host, and fit for a request line."""
    try:
        parts = urlsplit(url)
        port_is_valid = parts.port is None or parts.port > 0
    except ValueError as error:
        raise DefinitionError('payload_url', _('Enter a valid URL: {error}.').format(error=error)) from None
    if parts.scheme not in SCHEMES or not parts.hostname:
        raise DefinitionError('payload_url', _('Enter a URL that begins with http:// or https:// and has a host.'))
    if not port_is_valid or re.search(r'[\s\x00-\x1f\x7f]', url):
        raise DefinitionError('payload_url', _('Enter a valid URL: it holds a space, a control character or port 0.'))


def _check_content_type(definition: Definition) -> None:
    if not CONTENT_TYPE.fullmatch(definition.http_content_type):
        raise DefinitionError('http_content_type', _('Enter a content type such as application/json.'))


def _check_format(definition: Definition) -> None:
    if definition.payload_format == FormatChoices.CLOUDEVENTS and is_form(definition.http_content_type):
        raise DefinitionError('http_content_type', _('CloudEvents are JSON and cannot be form-encoded.'))
    if definition.payload_format != FormatChoices.DEFAULT and definition.body_template:
        raise DefinitionError('body_template', _('A template replaces the default format only: choose one of the two.'))
    if definition.http_method == 'GET' and definition.body_template:
        raise DefinitionError('body_template', _('A GET request has no body to put a template in.'))


def _check_headers(definition: Definition) -> None:
    text = reveal('additional_headers', definition.additional_headers)
    for _name, value in parse_headers(text):
        _check_template('additional_headers', value)


def _check_body(definition: Definition) -> None:
    _check_template('body_template', definition.body_template)


def _check_template(field: str, text: str) -> None:
    if not text:
        return
    try:
        jinja.check(text)
    except jinja.RenderError as error:
        raise DefinitionError(field, _('Invalid template: {error}').format(error=error)) from None


def _check_conditions(definition: Definition) -> None:
    if definition.conditions in (None, {}, ''):
        return
    try:
        ConditionSet(definition.conditions)
        for node in _nodes(definition.conditions):
            _check_node(node)
    except RecursionError:
        raise DefinitionError('conditions', _('Invalid conditions: they are nested too deeply.')) from None
    except (ValueError, TypeError, KeyError, AttributeError, InvalidCondition) as error:
        raise DefinitionError('conditions', _('Invalid conditions: {error}').format(error=error)) from None


def _nodes(value: Any) -> Iterator[Any]:
    """Yield the value and all that is in it, keys too."""
    yield value
    if isinstance(value, dict):
        for pair in value.items():
            yield from _nodes(list(pair))
    if isinstance(value, list):
        for item in value:
            yield from _nodes(item)


def _check_node(node: Any) -> None:
    """Raise ValueError for what ConditionSet lets pass and PostgreSQL or the evaluation does not."""
    if isinstance(node, str) and UNSTORABLE.search(node):
        raise ValueError(_('a text holds a null character or half a surrogate pair'))
    if isinstance(node, float) and not math.isfinite(node):
        raise ValueError(_('a number is not finite'))
    if isinstance(node, dict) and not isinstance(node.get('attr', ''), str):
        raise ValueError(_('attr is the name of an attribute'))
    if isinstance(node, dict) and node.get('op') == Condition.REGEX:
        try:
            re.compile(node.get('value'))
        except re.error as error:
            raise ValueError(error) from None


def _check_secret(definition: Definition) -> None:
    try:
        signing.check(reveal('secret', definition.secret))
    except ValueError as error:
        raise DefinitionError('secret', _('Invalid secret: {error}.').format(error=error)) from None


def _check_timeout(definition: Definition) -> None:
    limit = parse_job_timeout(settings.RQ_DEFAULT_TIMEOUT)
    if definition.timeout and limit is not None and definition.timeout >= limit:
        raise DefinitionError(
            'timeout', _('Must be less than the timeout of background jobs, {limit} seconds.').format(limit=limit)
        )


def _check_ca_file(definition: Definition) -> None:
    if definition.ca_file_path and not definition.ssl_verification:
        raise DefinitionError('ca_file_path', _('A CA file is of no use while TLS verification is off.'))
    _check_file('ca_file_path', definition.ca_file_path)


def _check_client_certificate(definition: Definition) -> None:
    if definition.client_key_path and not definition.client_cert_path:
        raise DefinitionError('client_key_path', _('A client key needs a client certificate file.'))
    _check_file('client_cert_path', definition.client_cert_path)
    _check_file('client_key_path', definition.client_key_path)


def _check_file(field: str, path: str) -> None:
    """Only files below `certificate_root`: whoever edits webhooks must not be able to probe the host's files."""
    if not path:
        return
    root = conf.get().certificate_root
    if root is None:
        raise DefinitionError(field, _('Files can be used once the setting certificate_root names their folder.'))
    if '\x00' in path or not Path(path).resolve().is_relative_to(root):
        raise DefinitionError(field, _('The file must be below {root}.').format(root=root))
    if not Path(path).is_file():
        raise DefinitionError(field, _('There is no such file.'))


def reveal(field: str, sealed: Any) -> str:
    """Return the text of a sealed field. Raises DefinitionError where it cannot be decrypted."""
    try:
        return sealed.reveal()
    except DecryptionError as error:
        raise DefinitionError(
            field, _('The stored value cannot be decrypted ({error}): enter it anew.').format(error=error)
        ) from None


CHECKS = (
    _check_kinds,
    _check_url,
    _check_content_type,
    _check_format,
    _check_headers,
    _check_body,
    _check_conditions,
    _check_secret,
    _check_timeout,
    _check_ca_file,
    _check_client_certificate,
)

"""Is a webhook's definition sound, and how is it shown without its secrets? For any object with the fields."""

import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit

from django.conf import settings
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy as _lazy
from extras.conditions import Condition, ConditionSet, InvalidCondition
from netbox.settings_utils import parse_job_timeout
from utilities.jinja2 import HTTP_HEADER_INVALID_CHARS_RE, JINJA2_TEMPLATE_RE

from .. import conf
from ..choices import FormatChoices
from ..constants import RESERVED_HEADERS
from ..exceptions import DecryptionError, DefinitionError
from ..security import signing
from ..security.encryption import MASK
from ..security.masking import mask_template
from ..storable import UNSTORABLE
from ..templating import environment

HEADER_NAME = re.compile(r"^[!#$%&'*+.^_`|~0-9A-Za-z-]+$")
CONTENT_TYPE = re.compile(r'[\w!#$&^.+-]+/[\w!#$&^.+-]+(\s*;\s*[\w.-]+=("[^"\x00-\x1f]*"|[\w.+-]+))*', re.ASCII)
FORM = 'application/x-www-form-urlencoded'
PORTS = {'http': 80, 'https': 443}
SCHEMES = tuple(PORTS)
# Scheme, host and port, and that they are at an end.
AUTHORITY = re.compile(r'[a-z]+://[^/?#]+[/?#]', re.IGNORECASE)
MOVED = _lazy(
    'The URL leads to another host: enter the values of these headers anew. Stored ones do not go where they did not '
    'go before.'
)


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
    for number, line in enumerate(text.replace('\r\n', '\n').split('\n'), 1):
        if line.strip():
            yield _parse_header(number, line)


def _parse_header(number: int, line: str) -> tuple[str, str]:
    name, colon, value = line.partition(':')
    name, value = name.strip(), value.strip()
    # The line is not repeated: it may be the second half of a secret.
    if not colon:
        raise DefinitionError(
            'additional_headers', _('Each line is "Name: value"; line {number} has no colon.').format(number=number)
        )
    if not HEADER_NAME.match(name):
        raise DefinitionError(
            'additional_headers', _('Line {number} does not begin with the name of a header.').format(number=number)
        )
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


def merge_headers(text: str, stored: Any, moved: bool = False) -> str:
    """Return `text` with each masked value replaced by the one stored under the same name.

    This lets a form or an API client send back what it was shown. Raises DefinitionError for a mask without a value,
    and for any mask where the webhook has `moved`.
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


def merge_url(url: str, stored: str) -> str:
    """Return the stored URL where `url` is how it was shown, else `url`."""
    return stored if MASK in url and url == mask_template(whole_url(stored)) else url


def whole_url(url: Any) -> str:
    """Return the URL of a definition, which may be one that shows itself masked."""
    return url.reveal() if hasattr(url, 'reveal') else url


def is_moved(before: Any, after: Any) -> bool:
    """Whether requests go to another scheme, host or port than before. Stored header values must not follow.

    A URL that is refused leads nowhere.
    """
    try:
        _check_whole_url(whole_url(after))
    except DefinitionError:
        return False
    return _origin(whole_url(before)) != _origin(whole_url(after))


def _origin(url: str) -> Any:
    """Return scheme, host and port; the whole text where a template may make them up."""
    fixed, template, _rest = url.partition('{')
    # A backslash ends the host for some parsers and not for others.
    if (template and not AUTHORITY.match(fixed)) or '\\' in fixed:
        return url
    try:
        parts = urlsplit(fixed)
        return parts.scheme, parts.hostname, parts.port or PORTS.get(parts.scheme)
    except ValueError:
        return url


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
    _check_whole_url(whole_url(definition.payload_url))


def _check_whole_url(url: str) -> None:
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
    except ValueError:
        # What urllib says of it may hold the user and the password.
        raise DefinitionError('payload_url', _('Enter a valid URL: its host or its port is not one.')) from None
    if parts.scheme not in SCHEMES or not parts.hostname:
        raise DefinitionError('payload_url', _('Enter a URL that begins with http:// or https:// and has a host.'))
    if not port_is_valid or re.search(r'[\s\x00-\x1f\x7f]', url) or UNSTORABLE.search(url):
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
        environment.check(text)
    except environment.RenderError as error:
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


def is_storable(value: Any) -> bool:
    """Whether no text in the value is one that PostgreSQL cannot hold."""
    try:
        return not any(isinstance(node, str) and UNSTORABLE.search(node) for node in _nodes(value))
    except RecursionError:
        return False


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
        except (re.error, OverflowError) as error:
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
    if not _is_file(path):
        raise DefinitionError(field, _('There is no such file.'))


def _is_file(path: str) -> bool:
    try:
        return Path(path).is_file()
    except OSError:  # a name that is too long, a folder that may not be read
        return False


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

import re
from typing import Any
from urllib.parse import urlsplit

from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy
from utilities.jinja2 import JINJA2_TEMPLATE_RE

from ..brokers import address
from ..constants import MAX_SENT_URL
from ..exceptions import DefinitionError
from ..security.masking import MASK, shown_url, whole_url
from ..storable import UNSTORABLE
from . import broker
from .definition import Definition
from .templates import check_template

PORTS = {'http': 80, 'https': 443}
SCHEMES = tuple(PORTS)
# Complete scheme, host and port.
AUTHORITY = re.compile(r'[a-z]+://[^/?#]+[/?#]', re.IGNORECASE)

# What requests and urlsplit() read alike, and a page shows as it is called.
HOST = re.compile(r'[\w.-]+|[0-9a-f:.]+(%[\w.-]+)?', re.IGNORECASE)

UNMASKED = gettext_lazy('Enter the whole URL again: its path was hidden so far, and will be shown from now on.')


def check(definition: Definition) -> None:
    check_text(whole_url(definition.payload_url))


def check_feed(definition: Definition) -> None:
    if definition.payload_url:
        return
    for name in ('batch', 'change_set'):
        if getattr(definition, name):
            raise DefinitionError(name, _('A webhook without a URL is a feed, which shows each change alone.'))
    if definition.credential:
        raise DefinitionError('credential', _('A webhook without a URL is a feed, which sends no request.'))


def check_text(url: str) -> None:
    """Raises DefinitionError for a URL, or a template of one, that no request can go to. A feed has none."""
    if not url:
        return
    if MASK in url:
        raise DefinitionError('payload_url', _('Enter the whole URL: replace ******** with the real text.'))
    if JINJA2_TEMPLATE_RE.search(url):
        check_template('payload_url', url)
        if address.is_broker(url):
            broker.check_url(url)
            return
        scheme = re.match(r'^([a-zA-Z][a-zA-Z0-9+.-]*):', url)
        if scheme and scheme[1].lower() not in SCHEMES:
            raise DefinitionError('payload_url', _('Enter a URL that begins with http:// or https://.'))
        fixed = url.partition('{')[0]
        if AUTHORITY.match(fixed):
            check_plain_url(fixed)
        return
    if address.is_broker(url):
        broker.check_url(url)
        return
    check_plain_url(url)


def check_plain_url(url: str, field: str = 'payload_url') -> None:
    """An http(s) URL fit for a request line."""
    if len(url) > MAX_SENT_URL:
        reason = _('The URL has {length} characters, but no more than {limit} are possible.')
        raise DefinitionError(field, reason.format(length=len(url), limit=MAX_SENT_URL))
    try:
        parts = urlsplit(url)
        port_is_valid = parts.port is None or parts.port > 0
    except ValueError:
        # urllib's message may hold user and password.
        raise DefinitionError(field, _('Enter a valid URL: its host or its port is not valid.')) from None
    if parts.scheme not in SCHEMES or not parts.hostname:
        raise DefinitionError(field, _('Enter a URL that begins with http:// or https:// and has a host.'))
    if '\\' in parts.netloc or not HOST.fullmatch(parts.hostname):
        raise DefinitionError(field, _('Enter a valid URL: its host contains a character that is not allowed.'))
    if not port_is_valid or re.search(r'[\s\x00-\x1f\x7f]', url) or UNSTORABLE.search(url):
        raise DefinitionError(field, _('Enter a valid URL, without spaces, control characters or port 0.'))


def check_rendered_url(url: str, template: str) -> None:
    """Raises DefinitionError. Only the `template` itself may name a broker, never an object's data."""
    named = address.split(template)
    if named and (place := address.split(url)) and place.origin == named.origin:
        broker.check_address(place, url)
        return
    check_plain_url(url)


def merge_url(url: str, stored: str) -> str:
    """Return the stored URL if `url` is its masked form."""
    return stored if MASK in url and url == shown_url(stored) else url


def leads_elsewhere(before: Any, after: Any) -> bool:
    """Whether requests may go to another scheme, host or port."""
    return _origin(whole_url(before)) != _origin(whole_url(after))


def _origin(url: str) -> str:
    """A template may make scheme, host or port."""
    fixed, template, _rest = url.partition('{')
    if place := address.split(url):
        return place.origin
    if template and not AUTHORITY.match(fixed):
        return url
    return origin_of(fixed) or url


def origin_of(url: str, *, verified: bool = True) -> str | None:
    """Return scheme, host and port, None of an invalid URL. HTTPS that is not verified counts as HTTP."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port or PORTS[parts.scheme]
    except (ValueError, KeyError):
        return None
    # Only some parsers end the host at a backslash.
    if not host or '\\' in parts.netloc:
        return None
    scheme = 'http' if parts.scheme == 'https' and not verified else parts.scheme
    shown = f'[{host}]' if ':' in host else host
    return f'{scheme}://{shown}' if port == PORTS[scheme] else f'{scheme}://{shown}:{port}'

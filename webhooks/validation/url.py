"""Checks URLs, compares their hosts, and puts stored URLs in place of masked ones."""

import re
from urllib.parse import urlsplit

from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy
from utilities.jinja2 import JINJA2_TEMPLATE_RE

from ..brokers import address
from ..constants import MAX_SENT_URL_CHARS
from ..exceptions import DefinitionError
from ..security.masking import MASK, shown_url
from ..storable import UNSTORABLE
from . import broker
from .definition import Definition
from .secret import reveal
from .templates import check_template

# Origins leave these ports out.
DEFAULT_PORTS = {'http': 80, 'https': 443}
SCHEMES = tuple(DEFAULT_PORTS)
# A beginning with scheme, host and port. The character after them shows that they are complete.
AUTHORITY = re.compile(r'[a-z]+://[^/?#]+[/?#]', re.IGNORECASE)

# requests and urlsplit() read such a host alike, and pages show it unchanged.
HOST_NAME = re.compile(r'[\w.-]+|[0-9a-f:.]+(%[\w.-]+)?', re.IGNORECASE)

# If somebody switches `secret_path` off, and leaves the masked URL in place, forms and the API show this.
UNMASKED = gettext_lazy('Enter the whole URL again: its path was hidden so far, and will be shown from now on.')


def check(definition: Definition) -> None:
    """Raise DefinitionError unless the URL can be called, or published to. A feed has none."""
    check_text(reveal('payload_url', definition.payload_url))


def check_feed(definition: Definition) -> None:
    """Raise DefinitionError if a webhook without URL, which is a feed, has a field that needs requests."""
    if definition.payload_url:
        return
    if definition.change_set:
        raise DefinitionError('change_set', _('A webhook without a URL is a feed, which shows each change alone.'))
    if definition.credential:
        raise DefinitionError('credential', _('A webhook without a URL is a feed, which sends no request.'))


def check_text(url: str) -> None:
    """Raise DefinitionError for a wrong URL. Of a template, only the fixed beginning is checked. A feed has none."""
    if not url:
        return
    if MASK in url:
        raise DefinitionError('payload_url', _('Enter the whole URL: replace ******** with the real text.'))
    is_template = JINJA2_TEMPLATE_RE.search(url)
    if is_template:
        check_template('payload_url', url)
    if address.is_broker(url):
        broker.check_url(url)
        return
    scheme = re.match(r'^([a-zA-Z][a-zA-Z0-9+.-]*):', url)
    if is_template and scheme and scheme[1].lower() not in SCHEMES:
        raise DefinitionError('payload_url', _('Enter a URL that begins with http:// or https://.'))
    fixed = before_template(url) if is_template else url
    if fixed is not None:
        check_plain_url(fixed)


def before_template(url: str) -> str | None:
    """Return the URL up to its first template, the whole of one without. None: a template makes host or port."""
    fixed, template, _rest = url.partition('{')
    return fixed if not template or AUTHORITY.match(fixed) else None


def check_plain_url(url: str, field: str = 'payload_url') -> None:
    """Raise DefinitionError for `field` unless this is an http(s) URL, without templates, that can be sent."""
    if len(url) > MAX_SENT_URL_CHARS:
        reason = _('The URL has {length} characters, but no more than {limit} are allowed.')
        raise DefinitionError(field, reason.format(length=len(url), limit=MAX_SENT_URL_CHARS))
    try:
        parts = urlsplit(url)
        port_is_valid = parts.port is None or parts.port > 0
    except ValueError:
        # urllib's own message may hold user and password.
        raise DefinitionError(field, _('Enter a valid URL: its host or its port is not valid.')) from None
    if parts.scheme not in SCHEMES or not parts.hostname:
        raise DefinitionError(field, _('Enter a URL that begins with http:// or https:// and has a host.'))
    if '\\' in parts.netloc or not HOST_NAME.fullmatch(parts.hostname):
        raise DefinitionError(field, _('Enter a valid URL: its host contains a character that is not allowed.'))
    if not port_is_valid or re.search(r'[\s\x00-\x1f\x7f]', url) or UNSTORABLE.search(url):
        raise DefinitionError(field, _('Enter a valid URL, without spaces, control characters or port 0.'))


def check_rendered_url(url: str, template: str) -> None:
    """Raise DefinitionError unless the rendered URL can be called, or published to.

    Only the `template` itself may name a broker: an object's data must not lead to one.
    """
    named = address.split(template)
    if named and (place := address.split(url)) and place.origin == named.origin:
        broker.check_address(place, url)
        return
    check_plain_url(url)


def merge_url(url: str, stored: str) -> str:
    """Return the stored URL if `url` is its masked form, else `url`. Forms and API show masked URLs."""
    return stored if MASK in url and url == shown_url(stored) else url


def origin_of(url: str, *, verified: bool = True) -> str | None:
    """Return scheme, host and port of a URL, such as https://awx.example.com, without a default port.

    None if the URL is invalid. HTTPS that is not `verified` counts as HTTP.
    """
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port or DEFAULT_PORTS[parts.scheme]
    except (ValueError, KeyError):
        return None
    # Some parsers end the host at a backslash, others do not: it is not clear which host would be called.
    if not host or '\\' in parts.netloc:
        return None
    scheme = 'http' if parts.scheme == 'https' and not verified else parts.scheme
    shown = f'[{host}]' if ':' in host else host
    return f'{scheme}://{shown}' if port == DEFAULT_PORTS[scheme] else f'{scheme}://{shown}:{port}'

import functools
import re
from typing import Any
from urllib.parse import SplitResult, urlsplit, urlunsplit

from urllib3.exceptions import LocationParseError
from urllib3.util import parse_url

from ..constants import MAX_URL

MASK = '********'

TEMPLATE = re.compile(r'\{\{.*?\}\}|\{%.*?%\}|\{#.*?#\}', re.DOTALL)
# No part of a URL begins or ends at these characters.
PLACEHOLDER = re.compile('\ue000[0-9]+\ue001')
USER = re.compile('//[^/]*@')
# Host and port. Else the port may be a password.
CALLABLE = re.compile(r'[^:]*(:[0-9]*)?|\[[^]]*\](:[0-9]*)?')


@functools.lru_cache(256)
def mask_template(url: str, hides_path: bool = False) -> str:
    if len(url) > MAX_URL:
        return MASK
    # A slash inside a template does not end the host.
    templates = {f'\ue000{index}\ue001': text for index, text in enumerate(TEMPLATE.findall(url))}
    names = iter(templates)
    masked = mask_url(TEMPLATE.sub(lambda _: next(names), url), hides_path)
    return PLACEHOLDER.sub(lambda found: templates.get(found[0], found[0]), masked)


def mask_url(url: str, hides_path: bool = False) -> str:
    """Mask user, query values and, if `hides_path`, path. Only the scheme of an invalid URL stays."""
    try:
        parts = urlsplit(url)
    except ValueError:
        scheme, separator, _rest = url.partition('://')
        return f'{scheme}://{MASK}' if separator else MASK
    authority, backslash, _rest = parts.netloc.partition('\\')
    _user, at, host = authority.rpartition('@')
    netloc = f'{MASK}@{_called(host)}' if at else _called(host)
    path = parts.path if parts.netloc else USER.sub(f'//{MASK}@', parts.path)
    if backslash:
        # requests ends the host there. What follows is a path to it, and looks like a user to others.
        hides_path, path = True, f'{backslash}{path}'
        netloc = netloc if CALLABLE.fullmatch(netloc) else MASK
    if hides_path and path.strip('/'):
        path = f'/{MASK}' if parts.netloc else MASK
    query = '&'.join(map(_mask_parameter, parts.query.split('&'))) if parts.query else ''
    return urlunsplit(SplitResult(parts.scheme, netloc, path, query, ''))


def _called(host: str) -> str:
    """Return host and port as requests calls them."""
    if '%' not in host or host.startswith('['):
        return host
    try:
        return parse_url(f'//{host}').netloc or MASK
    except LocationParseError:
        return host


def _mask_parameter(parameter: str) -> str:
    name, equals, _value = parameter.partition('=')
    return f'{name}={MASK}' if equals else MASK


def whole_url(url: Any) -> str:
    """Takes a text or a MaskedUrl."""
    return url.reveal() if hasattr(url, 'reveal') else url


def shown_url(url: Any) -> str:
    """A MaskedUrl knows whether its path is secret."""
    return str(url) if hasattr(url, 'reveal') else mask_template(url)

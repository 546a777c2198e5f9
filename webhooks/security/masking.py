"""Masks the secret parts of URLs, for pages, API answers, logs and errors."""

import functools
import re
from typing import Any
from urllib.parse import SplitResult, urlsplit, urlunsplit

from urllib3.exceptions import LocationParseError
from urllib3.util import parse_url

from ..constants import MAX_URL_CHARS

# Stands for a secret wherever one would be shown, and in forms and the API for one that is stored.
MASK = '********'

# One tag of a Jinja2 template.
TEMPLATE_TAG = re.compile(r'\{\{.*?\}\}|\{%.*?%\}|\{#.*?#\}', re.DOTALL)
# Stands for a tag while the URL is parsed. No part of a URL begins or ends at these characters.
PLACEHOLDER = re.compile('\ue000[0-9]+\ue001')
# A user in a URL whose scheme is missing or a template: urlsplit() takes the host for a part of the path.
USER_PART = re.compile('//[^/]*@')
# If the port is no number, it may be a password: `user:password` without a host.
HOST_AND_PORT = re.compile(r'[^:]*(:[0-9]*)?|\[[^]]*\](:[0-9]*)?')


@functools.lru_cache(256)
def mask_template(url: str, hides_path: bool = False) -> str:
    """Return a webhook's URL, which may be a template, masked as by `mask_url`. Templates elsewhere stay readable.

    A URL of more than MAX_URL_CHARS characters becomes a mask as a whole.
    """
    if len(url) > MAX_URL_CHARS:
        return MASK
    # If a tag contains a slash or a question mark, urlsplit() would end the host or the path inside it.
    templates = {f'\ue000{index}\ue001': text for index, text in enumerate(TEMPLATE_TAG.findall(url))}
    names = iter(templates)
    masked = mask_url(TEMPLATE_TAG.sub(lambda _: next(names), url), hides_path)
    return PLACEHOLDER.sub(lambda found: templates.get(found[0], found[0]), masked)


@functools.lru_cache(256)
def mask_url(url: str, hides_path: bool = False) -> str:
    """Return the URL with masks in place of user, query values and, with `hides_path`, path. Its fragment is dropped.

    Only the scheme of an invalid URL stays.
    """
    try:
        parts = urlsplit(url)
    except ValueError:
        scheme, separator, _rest = url.partition('://')
        return f'{scheme}://{MASK}' if separator else MASK
    authority, backslash, _rest = parts.netloc.partition('\\')
    _user, at, host = authority.rpartition('@')
    netloc = f'{MASK}@{_called(host)}' if at else _called(host)
    path = parts.path if parts.netloc else USER_PART.sub(f'//{MASK}@', parts.path)
    if backslash:
        # requests ends the host at a backslash, and takes the rest for a path. Other parsers may take the rest for a
        # user. So it is masked.
        hides_path, path = True, f'{backslash}{path}'
        netloc = netloc if HOST_AND_PORT.fullmatch(netloc) else MASK
    if hides_path and path.strip('/'):
        path = f'/{MASK}' if parts.netloc else MASK
    query = '&'.join(map(_mask_parameter, parts.query.split('&'))) if parts.query else ''
    return urlunsplit(SplitResult(parts.scheme, netloc, path, query, ''))


def _called(host: str) -> str:
    """Return host and port as requests calls them: without percent escapes."""
    if '%' not in host or host.startswith('['):
        return host
    try:
        return parse_url(f'//{host}').netloc or MASK
    except LocationParseError:
        return host


def _mask_parameter(parameter: str) -> str:
    name, equals, _value = parameter.partition('=')
    return f'{name}={MASK}' if equals else MASK


def shown_url(url: Any) -> str:
    """Return the URL as pages show it. `url` is a text or a MaskedUrl.

    A MaskedUrl knows whether its path is secret. The path of a text is shown.
    """
    return str(url) if hasattr(url, 'reveal') else mask_template(url)

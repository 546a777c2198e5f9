"""How URLs are shown: without their user and the values of their query, which are as good as a password."""

import functools
import re
from urllib.parse import SplitResult, urlsplit, urlunsplit

from .crypto import MASK

TEMPLATE = re.compile(r'\{\{.*?\}\}|\{%.*?%\}|\{#.*?#\}', re.DOTALL)
# Private characters, which no part of a URL begins or ends at.
PLACEHOLDER = re.compile('\ue000([0-9]+)\ue001')


@functools.lru_cache(256)
def mask_url(url: str) -> str:
    """Return the URL with its user and the values of its query masked; of one that is none, only the scheme."""
    # What is inside a template is no part of the URL: a slash there does not end its host.
    templates = TEMPLATE.findall(url)
    numbers = iter(range(len(templates)))
    masked = _mask(TEMPLATE.sub(lambda _: f'\ue000{next(numbers)}\ue001', url))
    return PLACEHOLDER.sub(lambda found: templates[int(found[1])], masked)


def _mask(url: str) -> str:
    try:
        parts = urlsplit(url)
    except ValueError:
        scheme, separator, _rest = url.partition('://')
        return f'{scheme}://{MASK}' if separator else MASK
    netloc = f'{MASK}@{parts.netloc.rpartition("@")[2]}' if '@' in parts.netloc else parts.netloc
    query = '&'.join(map(_mask_parameter, parts.query.split('&'))) if parts.query else ''
    return urlunsplit(SplitResult(parts.scheme, netloc, parts.path, query, ''))


def _mask_parameter(parameter: str) -> str:
    name, equals, _value = parameter.partition('=')
    return f'{name}={MASK}' if equals else MASK

"""Finds out whether a webhook moves to another endpoint.

Stored header values must not follow it there: an editor could read them.
"""

from collections.abc import Mapping
from typing import Any

from ..brokers import address
from ..exceptions import DefinitionError
from .definition import Definition
from .headers import merge_headers
from .secret import reveal
from .url import before_template, origin_of

# With another CA file another host may pass for the endpoint. With another certificate the webhook is another client.
IDENTIFYING = ('ca_file_path', 'client_cert_path', 'client_key_path')


def is_moved(before: Definition, changes: Mapping[str, Any]) -> bool:
    """Return whether `changes` lead the webhook to another host, to one that is less verified, or change its files.

    `changes` are values by field; other fields keep the values of `before`.
    """
    if before.ssl_verification and not changes.get('ssl_verification', True):
        return True
    if any(changes.get(name, getattr(before, name)) != getattr(before, name) for name in IDENTIFYING):
        return True
    return leads_elsewhere(before.payload_url, changes.get('payload_url', before.payload_url))


def merged_headers(stored: Any, changes: Mapping[str, Any]) -> Any:
    """Return the headers in `changes` of a webhook, with its stored values in place of masks, as merge_headers() does.

    Raises DefinitionError if a mask has no stored value, or if the webhook moves by these changes. A new one cannot.
    """
    moves = bool(stored.pk) and is_moved(stored, changes)
    return merge_headers(changes['additional_headers'], stored.additional_headers, moves)


def leads_elsewhere(before: Any, after: Any) -> bool:
    """Return whether requests to these two URLs may go to different schemes, hosts or ports.

    They may if one cannot be decrypted.
    """
    try:
        return _origin(reveal('payload_url', before)) != _origin(reveal('payload_url', after))
    except DefinitionError:
        return True


def _origin(url: str) -> str:
    """Return a text that is the same for URLs with the same scheme, host and port.

    A template may make scheme, host or port: then it is the whole URL.
    """
    if place := address.split(url):
        return place.origin
    return origin_of(before_template(url) or '') or url

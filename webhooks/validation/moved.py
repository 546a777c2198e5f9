"""Whether a changed webhook leads elsewhere than before: stored header values must not follow it there."""

from collections.abc import Mapping
from typing import Any

from .definition import Definition
from .url import leads_elsewhere

# By which the endpoint is known to be the one that the values were entered for.
IDENTIFYING = ('ca_file_path', 'client_cert_path', 'client_key_path')


def is_moved(before: Definition, changes: Mapping[str, Any]) -> bool:
    """Whether requests go to another host, or to one that is verified less, or by other files.

    `changes` are fields of the definition; those that are not among them stay as they are.
    """
    if before.ssl_verification and not changes.get('ssl_verification', True):
        return True
    if any(changes.get(name, getattr(before, name)) != getattr(before, name) for name in IDENTIFYING):
        return True
    return leads_elsewhere(before.payload_url, changes.get('payload_url', before.payload_url))

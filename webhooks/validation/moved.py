"""Stored header values must not follow a webhook to another endpoint."""

from collections.abc import Mapping
from typing import Any

from .definition import Definition
from .url import leads_elsewhere

IDENTIFYING = ('ca_file_path', 'client_cert_path', 'client_key_path')


def is_moved(before: Definition, changes: Mapping[str, Any]) -> bool:
    """To another host, less verified, or with other files."""
    if before.ssl_verification and not changes.get('ssl_verification', True):
        return True
    if any(changes.get(name, getattr(before, name)) != getattr(before, name) for name in IDENTIFYING):
        return True
    return leads_elsewhere(before.payload_url, changes.get('payload_url', before.payload_url))

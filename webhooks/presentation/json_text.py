"""Lays out JSON for people."""

import json

from ..storable import storable


def readable(body: str) -> str:
    """Return JSON with a key a line. Any other text comes back unchanged."""
    try:
        # JSON may hold half a surrogate pair. A page with it could not be encoded, and would fail.
        return storable(json.dumps(json.loads(body), indent=4, ensure_ascii=False))
    except (ValueError, RecursionError):
        return body

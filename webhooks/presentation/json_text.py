"""Lays out JSON for people."""

import json

from ..storable import storable

# Deeply nested lists grow a thousandfold when they are laid out. A receiver could make pages of many megabytes so.
MAX_GROWTH = 10


def readable(body: str) -> str:
    """Return JSON with a key a line. Any other text comes back unchanged, and JSON that would grow too much."""
    try:
        # JSON may hold half a surrogate pair. A page with it could not be encoded, and would fail.
        laid_out = storable(json.dumps(json.loads(body), indent=4, ensure_ascii=False))
    except (ValueError, RecursionError):
        return body
    return laid_out if len(laid_out) <= MAX_GROWTH * len(body) + 1000 else body

"""Reads the W3C Trace Context (level 1) of the request that makes a change: it goes on to the receiver.

It comes from a client, so it is checked. Anything that is not valid is left out, as the standard asks for.
"""

import re
from collections.abc import Mapping

# Trace and parent are not all zeros. Version 00 has these four parts, later versions may add more.
TRACE_IDS = '(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}'
TRACEPARENT = re.compile(f'00-{TRACE_IDS}|(?!00|ff)[0-9a-f]{{2}}-{TRACE_IDS}(-[!-~]*)?')
STATE_KEY = '[a-z0-9][a-z0-9_*/-]{0,255}(@[a-z][a-z0-9_*/-]{0,13})?'
# Printable, without comma and equals sign; the last one is no space.
STATE_MEMBER = re.compile(f'{STATE_KEY}=[ -+\\--<>-~]{{0,255}}[!-+\\--<>-~]')
# The standard bounds a `tracestate`.
MAX_STATE_CHARS = 512
MAX_STATE_MEMBERS = 32
# A `traceparent` of a later version may be longer than that of version 00, but is stored with each event.
MAX_PARENT_CHARS = 256


def context_of(headers: Mapping[str, str]) -> dict[str, str] | None:
    """Return the headers `traceparent` and, if it is valid, `tracestate`. None without a valid `traceparent`.

    `headers`: as in Django's request.META.
    """
    parent = headers.get('HTTP_TRACEPARENT', '').strip()
    if len(parent) > MAX_PARENT_CHARS or not TRACEPARENT.fullmatch(parent):
        return None
    state = _state(headers.get('HTTP_TRACESTATE', ''))
    return {'traceparent': parent, 'tracestate': state} if state else {'traceparent': parent}


def _state(text: str) -> str:
    """Return '' for a list that is not valid."""
    members = [one.strip(' \t') for one in text.split(',')]
    members = [one for one in members if one]
    keys = {one.partition('=')[0] for one in members}
    is_valid = len(keys) == len(members) <= MAX_STATE_MEMBERS and all(map(STATE_MEMBER.fullmatch, members))
    joined = ','.join(members)
    return joined if is_valid and len(joined) <= MAX_STATE_CHARS else ''

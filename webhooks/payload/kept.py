"""Keeps the bodies of attempts for the log: the text itself, or a recipe that makes it again.

If one event makes a body without a template, the event holds nearly all of it. The rest is a few fields of the webhook,
which may be saved later. So `made_from` keeps these fields, and a checksum: it tells whether the body that is made
again is the same. Without recipes the log would be a sixth larger. Any other body is kept itself. Nobody could make it
again: its template, or its change set, may have changed.
"""

import base64
import copy
import zlib
from collections.abc import Mapping, Sequence
from enum import Enum
from typing import Any, NamedTuple

from netbox.registry import registry

from ..choices import FormatChoices
from ..models import Attempt, Delivery, Webhook
from ..transport.exchange import Request
from . import formats
from .authorization import TokenRequest

# Before compression. The log keeps no more of a body.
MAX_KEPT_BYTES = 64 * 1024
# zlib's fastest level takes half the time of the default, and a tenth more room.
COMPRESSION_LEVEL = 1

# Besides `expand`, a body that is made again depends on these fields of its webhook.
RECIPE_FIELDS = ('payload_format', 'http_content_type', 'include_snapshots', 'fields', 'omit')


class Origin(Enum):
    """Where a body comes from, and whether it is the body that was sent."""

    # The body that was sent, with masks for credentials.
    KEPT = 'kept'
    # The beginning of the body that was sent, with masks for credentials.
    CUT = 'cut'
    # Made again. It has the checksum of the body that was sent, so it is the same.
    SAME = 'same'
    # Made again, but with another checksum: another body was sent.
    OTHER = 'other'
    # Nothing was sent, or nothing is known of it.
    UNKNOWN = 'unknown'


class Body(NamedTuple):
    """A body as text, and its origin. The text is '' if nothing is known."""

    text: str
    origin: Origin


def columns(webhook: Webhook, deliveries: Sequence[Delivery], request: Request | None) -> dict[str, Any]:
    """Return the attempt's `request_body` (compressed, in base64) or `made_from`, or {} if no body was sent.

    `deliveries` went out together in `request`.
    """
    if request is None or isinstance(request, TokenRequest):
        return {}
    if request.shown_body is None and _can_be_made_again(webhook, deliveries):
        return {'made_from': _recipe(webhook, deliveries[0], request.body)}
    shown = request.body if request.shown_body is None else request.shown_body
    # If the body is longer, one byte more is kept, which shows that it was cut.
    compressed = zlib.compress(shown[: MAX_KEPT_BYTES + 1], COMPRESSION_LEVEL)
    return {'request_body': base64.b64encode(compressed).decode()}


def body_of(attempt: Attempt) -> Body:
    """Return the body that the attempt has sent. Reads its delivery, event and webhook, and writes nothing."""
    if attempt.request_body is not None:
        body = zlib.decompress(attempt.request_body)
        origin = Origin.CUT if len(body) > MAX_KEPT_BYTES else Origin.KEPT
        return Body(body[:MAX_KEPT_BYTES].decode(errors='replace'), origin)
    delivery, recipe = attempt.delivery, attempt.made_from
    if recipe is None or not delivery.event.data:
        return Body('', Origin.UNKNOWN)
    body = _made_again(delivery, recipe)
    return Body(body.decode(errors='replace'), Origin.SAME if zlib.crc32(body) == recipe['crc32'] else Origin.OTHER)


def known_body_of(attempt: Attempt) -> str | None:
    """Return the body that the attempt has sent, or None if it is not known exactly.

    One of more than MAX_KEPT_BYTES lacks its end.
    """
    text, origin = body_of(attempt)
    if origin in (Origin.UNKNOWN, Origin.OTHER):
        return None
    return text.encode()[:MAX_KEPT_BYTES].decode(errors='ignore')


def _can_be_made_again(webhook: Webhook, deliveries: Sequence[Delivery]) -> bool:
    """Return whether the event and a recipe are enough to make the body again."""
    together = webhook.change_set or deliveries[0].parts is not None
    # Callbacks of plugins may add something else each time.
    has_callbacks = webhook.payload_format == FormatChoices.NETBOX and bool(registry['webhook_callbacks'])
    return not together and not has_callbacks


def _recipe(webhook: Webhook, delivery: Delivery, body: bytes) -> dict[str, Any]:
    """Return the value of `made_from`. Fields with their default value are left out."""
    chosen = {name: getattr(webhook, name) for name in RECIPE_FIELDS if getattr(webhook, name) != _default(name)}
    expand = {'expand': list(webhook.expand)} if delivery.expanded and webhook.expand else {}
    return {'crc32': zlib.crc32(body), **chosen, **expand}


def _made_again(delivery: Delivery, recipe: Mapping[str, Any]) -> bytes:
    """Return the body by the recipe. The webhook itself is not changed."""
    webhook = copy.copy(delivery.webhook)
    for name in RECIPE_FIELDS:
        setattr(webhook, name, recipe.get(name, _default(name)))
    return formats.body(webhook, [delivery.event_as_sent], recipe.get('expand', ()))


def _default(name: str) -> Any:
    return Webhook._meta.get_field(name).get_default()

"""What the receiver got: an attempt keeps its body, or what makes it again.

A body without a template that tells of one event is made again: all that it says stands in the event, but for a few
fields of the webhook, which may be saved later. `made_from` holds these, and a checksum, which tells whether the result
is what was sent. Any other body is kept, for nobody could make it again: its template, or its batch, may have changed.
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
from .access import TokenRequest

# Of the body, before it is compressed.
MAX_KEPT_BYTES = 64 * 1024
# Of zlib. It takes half the time of the default, and a tenth more room.
COMPRESSION_LEVEL = 1

# The fields that decide over a body that is made again, beside `expand`.
RECIPE_FIELDS = ('payload_format', 'http_content_type', 'include_snapshots')


class Origin(Enum):
    # As it was sent, but that credentials are masked.
    KEPT = 'kept'
    # The same, without its end.
    CUT = 'cut'
    # Made again, with the checksum of what was sent.
    SAME = 'same'
    # Made again, but what was sent was another body.
    OTHER = 'other'
    # Nothing was sent, or nothing is known of it.
    UNKNOWN = 'unknown'


class Body(NamedTuple):
    text: str
    origin: Origin


def columns(webhook: Webhook, deliveries: Sequence[Delivery], request: Request | None) -> dict[str, Any]:
    """Return the attempt's `request_body` (in base64) or `made_from`, or nothing if no body was sent.

    `deliveries` went out together in `request`.
    """
    if request is None or isinstance(request, TokenRequest):
        return {}
    if request.shown_body is None and _can_be_made_again(webhook, deliveries):
        return {'made_from': _recipe(webhook, deliveries[0], request.body)}
    shown = request.body if request.shown_body is None else request.shown_body
    # One byte more tells that it was cut.
    compressed = zlib.compress(shown[: MAX_KEPT_BYTES + 1], COMPRESSION_LEVEL)
    return {'request_body': base64.b64encode(compressed).decode()}


def body_of(attempt: Attempt) -> Body:
    """Return what the attempt has sent. Reads its delivery, event and webhook, and writes nothing."""
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
    """Return what the attempt has sent, or None if nobody knows."""
    text, origin = body_of(attempt)
    return None if origin in (Origin.UNKNOWN, Origin.OTHER) else text


def _can_be_made_again(webhook: Webhook, deliveries: Sequence[Delivery]) -> bool:
    together = webhook.batch or webhook.change_set or len(deliveries) > 1 or deliveries[0].parts is not None
    # They may say something else each time.
    has_callbacks = webhook.payload_format == FormatChoices.NETBOX and bool(registry['webhook_callbacks'])
    return not together and not has_callbacks


def _recipe(webhook: Webhook, delivery: Delivery, body: bytes) -> dict[str, Any]:
    """Return the fields without those that have their default."""
    chosen = {name: getattr(webhook, name) for name in RECIPE_FIELDS if getattr(webhook, name) != _default(name)}
    expand = {'expand': list(webhook.expand)} if delivery.expanded and webhook.expand else {}
    return {'crc32': zlib.crc32(body), **chosen, **expand}


def _made_again(delivery: Delivery, recipe: Mapping[str, Any]) -> bytes:
    webhook = copy.copy(delivery.webhook)
    for name in RECIPE_FIELDS:
        setattr(webhook, name, recipe.get(name, _default(name)))
    webhook.batch = webhook.change_set = False
    return formats.body(webhook, [delivery.told], recipe.get('expand', ()))


def _default(name: str) -> Any:
    return Webhook._meta.get_field(name).get_default()

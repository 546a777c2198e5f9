"""A request on its way: the deliveries that go out in it, and what came of it."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass

from ...exceptions import DefinitionError
from ...models import Delivery
from ...payload.http_request import Builder
from ...storable import storable
from ...transport.exchange import MAX_ERROR, Outcome, Request
from .. import sql

logger = logging.getLogger('webhooks.delivery')


@dataclass(eq=False)
class Sent:
    """A delivery, and `others` that go out in the same request, under its id. Its request, and what came of it.

    `request` is None where none could be built.
    """

    delivery: Delivery
    builder: Builder
    others: Sequence[Delivery] = ()
    request: Request | None = None
    outcome: Outcome | None = None

    @property
    def deliveries(self) -> list[Delivery]:
        return [self.delivery, *self.others]

    @property
    def pks(self) -> list[int]:
        return [one.pk for one in self.deliveries]


def prepare(deliveries: Sequence[Delivery], builder: Builder, now: float) -> Sent:
    """Build the request. Where none can be built, the outcome says why, and it is not sent."""
    first, *others = deliveries
    sent = Sent(first, builder, others)
    for one in deliveries:
        one.webhook = builder.webhook
    before = sql.session()
    try:
        events = [one.event.spanning(one.span) for one in sorted(deliveries, key=lambda one: one.sequence)]
        sent.request = builder.build(first, now, events)
        return sent
    except DefinitionError as error:
        reason = first.event.error or f'not sent: {error.field}: {error}'
    except Exception as error:
        if sql.is_broken_off(error, before):
            raise
        # One delivery must not stop the others, whatever a plugin's callback or filter does.
        logger.exception('delivery=%s cannot be built', first.uuid)
        reason = f'not sent: {type(error).__name__}: {error}'
    sent.outcome = Outcome(started_at=now, duration=0, error=storable(reason)[:MAX_ERROR], unsendable=True)
    return sent

"""A claimed delivery on its way: its request is built here, and its outcome is noted on it."""

import logging
from dataclasses import dataclass

from ..exceptions import DefinitionError
from ..models import Delivery
from ..payload.http_request import Builder
from ..storable import storable
from ..transport.exchange import MAX_ERROR, Outcome, Request
from . import sql

logger = logging.getLogger('webhooks.delivery')


@dataclass(eq=False)
class Claimed:
    """A claimed delivery, its request (None where none could be built) and what came of it."""

    delivery: Delivery
    builder: Builder
    request: Request | None = None
    outcome: Outcome | None = None


def prepare(delivery: Delivery, builder: Builder, now: float) -> Claimed:
    """Build the request. Where none can be built, the outcome says why, and the delivery is not sent."""
    delivery.webhook = builder.webhook
    if delivery.event.error:
        return _unsendable(delivery, builder, now, delivery.event.error)
    before = sql.session()
    try:
        return Claimed(delivery, builder, request=builder.build(delivery, now))
    except DefinitionError as error:
        reason = f'{error.field}: {error}'
    except Exception as error:
        if sql.is_broken_off(error, before):
            raise
        # One delivery must not stop the others, whatever a plugin's callback or filter does.
        logger.exception('delivery=%s cannot be built', delivery.uuid)
        reason = f'{type(error).__name__}: {error}'
    return _unsendable(delivery, builder, now, f'not sent: {reason}')


def _unsendable(delivery: Delivery, builder: Builder, now: float, reason: str) -> Claimed:
    error = storable(reason)[:MAX_ERROR]
    outcome = Outcome(started_at=now, duration=0, error=error, unsendable=True)
    return Claimed(delivery, builder, outcome=outcome)

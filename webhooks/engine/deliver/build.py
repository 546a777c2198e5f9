"""Builds the request of a delivery, sends it, and keeps the outcome. Threads do it, or the sender itself."""

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from http import HTTPStatus

from ...exceptions import DefinitionError
from ...interruptions import Shortage
from ...models import Delivery
from ...payload.access import TokenPending, TokenRequest
from ...payload.http_request import Builder
from ...storable import storable
from ...transport.exchange import MAX_ERROR_CHARS, Outcome, Request
from .. import sql, transactions
from . import change_sets
from .lane import Lane

logger = logging.getLogger('webhooks.delivery')


@dataclass(eq=False)
class Sent:
    """A delivery on its way, with its request and the outcome. `others` go out in the same request, under its id.

    Without a `request` it is still to be built, or the outcome says why it cannot be. A request may ask for an access
    token.
    """

    delivery: Delivery
    builder: Builder
    others: Sequence[Delivery] = ()
    request: Request | None = None
    outcome: Outcome | None = None
    # The worker's lane. None: it is sent without one, as suspects and tests are.
    lane: Lane | None = None
    # Time that the last build took.
    seconds: float = 0.0

    @property
    def deliveries(self) -> list[Delivery]:
        """Return all deliveries of the request. The first gives the request its id."""
        return [self.delivery, *self.others]

    @property
    def pks(self) -> list[int]:
        """Return the ids of all deliveries of the request, as in `deliveries`."""
        return [one.pk for one in self.deliveries]

    @property
    def goes_again(self) -> bool:
        """Whether this time does not count: there is no outcome, or this machine was short of processes or memory."""
        return self.outcome is None or self.outcome.starved

    def build(self) -> bool:
        """Build the request by the builder's definition. Returns whether there is one to send.

        If not, the outcome says why it fails. Without an outcome it goes again: another worker gets the access token.
        Raises INTERRUPTIONS, but not Shortage.
        """
        began = time.monotonic()
        try:
            self.request = self._build(time.time())
        finally:
            self.seconds = time.monotonic() - began
        return self.request is not None

    def send(self, send: Callable[[Request], Outcome]) -> None:
        """Send the request with this function, and keep its outcome. It touches no database."""
        self.outcome = send(self.request)

    def settle(self) -> None:
        """Keep a new access token, or forget one that was refused (401). To be called once after send().

        Then there is no outcome: the deliveries go again, with the next token. So they do if PostgreSQL breaks it off.
        """
        outcome, self.outcome = self.outcome, None
        with transactions.may_break_off():
            if isinstance(self.request, TokenRequest) and outcome:
                outcome = self.request.grant.settle(outcome)
            elif self.request and outcome and outcome.status == HTTPStatus.UNAUTHORIZED:
                outcome = None if self.builder.forget_token(self.request) else outcome
            self.outcome = outcome

    def _build(self, now: float) -> Request | None:
        for one in self.deliveries:
            one.webhook = self.builder.webhook
        before = sql.session()
        try:
            together = change_sets.in_order(self.deliveries)
            return self.builder.build(self.delivery, now, [one.told for one in together])
        except TokenPending:
            return None
        except Shortage as error:
            self.outcome = Outcome(started_at=now, duration=0, error=str(error), starved=True)
            return None
        except DefinitionError as error:
            reason = self.delivery.event.error or f'not sent: {error.field}: {error}'
        except Exception as error:
            if sql.is_broken_off(error, before):
                raise
            # A plugin's callback may raise anything. So any error fails the deliveries of this request only.
            logger.exception('delivery=%s cannot be built', self.delivery.uuid)
            reason = f'not sent: {type(error).__name__}: {error}'
        self.outcome = Outcome(started_at=now, duration=0, error=storable(reason)[:MAX_ERROR_CHARS], unsendable=True)
        return None

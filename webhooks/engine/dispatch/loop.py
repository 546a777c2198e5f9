"""Events are taken in hand, matched, rendered without a lock or transaction, and dispatched slice by slice."""

import logging
import time
from collections.abc import Collection, Sequence
from dataclasses import replace
from datetime import timedelta
from operator import attrgetter

from django.db import DataError
from django.db.models.functions import Now
from redis import RedisError

from ... import conf
from ...interruptions import BROKEN_OFF, Shortage
from ...models import Event, Webhook
from ...models.delivery import UNFORMED
from .. import rescue, sql, transactions
from ..each import each_or_alone, portions
from ..registry import Lost, Member
from . import claim, components, render
from .components import Reference
from .matching import accepts, match
from .render import Matches, Renderer, Shown

logger = logging.getLogger('webhooks.dispatch')

# Errors for values that JSON, UTF-8 or PostgreSQL refuses.
NOT_STORED = (DataError, ValueError)

# Deliveries made together; seconds until no further slice is rendered.
MOST, BUDGET = 1000, 0.3
# Until undecided conditions are tried again.
PAUSE = timedelta(seconds=1)

# One delivery of a change set is due, the rest follow it (engine/deliver/change_sets.py).
MAKE_DELIVERIES = """
    INSERT INTO webhooks_delivery (uuid, webhook_id, event_id, object_type_id, object_id, sequence,
        expanded, status, error, created, due_at, expires_at, attempt_count, listed, backfill, change_set, part)
    SELECT gen_random_uuid(), w.id, e.id, e.object_type_id, e.object_id, e.sequence, w.expand <> '{}',
        'pending', '', now(),
        CASE WHEN s.change_set IS NULL OR row_number() OVER (PARTITION BY w.id, s.change_set ORDER BY v.position) = 1
             THEN clock_timestamp() END,
        now() + make_interval(secs => %(expire_after)s), 0, false,
        %(keeps_backfill)s AND e.backfill_for IS NOT NULL,
        s.change_set, CASE WHEN s.change_set IS NOT NULL THEN %(unformed)s END
    FROM unnest(%(webhooks)s::bigint[], %(events)s::bigint[]) WITH ORDINALITY AS v(webhook_id, event_id, position)
    JOIN webhooks_event e ON e.id = v.event_id JOIN webhooks_webhook w ON w.id = v.webhook_id
    CROSS JOIN LATERAL (
        SELECT CASE WHEN w.change_set AND e.transaction_id <> 0 AND e.backfill_for IS NULL AND e.caused_by IS NULL
                    AND e.error = '' THEN e.transaction_id END AS change_set
    ) s
    ORDER BY v.position
    RETURNING id, webhook_id, event_id"""


class Dispatcher:
    def __init__(self, member: Member, *, suspects: bool = False) -> None:
        self._member = member
        self._take = claim.take_suspects if suspects else claim.Reading().take
        self._renderer = Renderer(lambda seconds: member.beat(seconds=seconds))

    def batch(self) -> int:
        """Returns the number of events, 0 if it was broken off."""
        try:
            return self._batch()
        except BROKEN_OFF as error:
            transactions.recover(error)
            self._let_go()
        except RedisError as error:
            transactions.recover(error)
        except Lost:
            logger.warning('worker=%s lost: it begins anew', self._member.pk)
            self._member.begin()
        return 0

    def _let_go(self) -> None:
        """One event may break off every transaction. So this counts as a death."""
        with transactions.may_break_off():
            rescue.rescue(self._member.name)
            self._member.begin()

    def _batch(self) -> int:
        with transactions.short():
            events = self._take(self._member)
        if events:
            self._dispatch(events)
        return len(events)

    def _dispatch(self, events: Sequence[Event]) -> None:
        matches, changed = match(events)
        components.tell_owners(changed)
        told = [event for event in events if event.caused_by and matches[event.pk]]
        waiting = components.take(told, [event.pk for event in events], self._member)
        # Components in the next batch must find their creation.
        kept = {event.pk for event in changed if components.is_new_owner(event)}
        unwanted = {event.pk for event in events if event.pk not in kept and not matches[event.pk]}
        claim.discard(unwanted)
        wanted = [event for event in events if event.pk not in waiting | unwanted]
        until = time.monotonic() + BUDGET
        undecided: set[Reference] = set()
        for part in self._renderer.render(sorted(wanted, key=attrgetter('sequence')), matches):
            decided, is_all = self._decide(part, matches, undecided)
            for some in portions(decided, lambda one: len(one.webhooks), MOST):
                each_or_alone(some, self._make, self._make_failed, NOT_STORED)
            if not is_all or time.monotonic() > until:
                break

    def _decide(self, part: Sequence[Shown], matches: Matches, undecided: set[Reference]) -> tuple[list[Shown], bool]:
        """As many as the time allows. Returns also whether that was all. `undecided`: objects whose events wait."""
        decided: list[Shown] = []
        until = time.monotonic() + BUDGET
        for number, shown in enumerate(part, 1):
            if self._is_decided(shown, matches[shown.event.pk], undecided):
                decided.append(shown)
            if time.monotonic() > until:
                return decided, number == len(part)
        return decided, True

    def _is_decided(self, shown: Shown, asking: Collection[Webhook], undecided: set[Reference]) -> bool:
        event = shown.event
        reference = event.object_type_id, event.object_id
        if reference in undecided:
            return False
        try:
            shown.webhooks = [webhook for webhook in asking if accepts(webhook, shown)]
        except Shortage as error:
            logger.warning('event=%s conditions=undecided reason="%s" (it is tried again)', event.uuid, error)
            undecided.add(reference)
            Event.objects.filter(pk=event.pk).update(retry_at=Now() + PAUSE)
            return False
        shown.skipped = len(asking) - len(shown.webhooks)
        return True

    def _make(self, going: Sequence[Shown]) -> Sequence[None]:
        with transactions.short():
            self._member.beat()
            render.save(going)
            pairs = [(webhook.pk, one.event.pk) for one in going for webhook in one.webhooks]
            make_deliveries(pairs, keeps_backfill=True)
        return ()

    def _make_failed(self, shown: Shown, error: Exception) -> None:
        self._make([replace(render.failed(shown.event, error), webhooks=shown.webhooks)])


def make_deliveries(pairs: Sequence[tuple[int, int]], *, keeps_backfill: bool = False) -> list[tuple[int, int, int]]:
    """Make due deliveries of (webhook id, event id). Returns (id, webhook id, event id) of each.

    `keeps_backfill` marks deliveries of backfills.
    """
    if not pairs:
        return []
    webhooks, events = map(list, zip(*pairs, strict=True))
    parameters = {'webhooks': webhooks, 'events': events, 'unformed': UNFORMED, 'keeps_backfill': keeps_backfill}
    return sql.fetch(MAKE_DELIVERIES, {**parameters, 'expire_after': conf.get().expire_after})

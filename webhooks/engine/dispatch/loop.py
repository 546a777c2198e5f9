"""Dispatches events batch by batch: takes them in hand, matches and renders them, and makes their deliveries.

Between the transactions of a batch it holds no lock. Each slice of rendered events is saved by itself.
"""

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from operator import attrgetter

from django.db import DataError
from redis import RedisError

from ... import conf
from ...config_contexts import SOURCES
from ...interruptions import BROKEN_OFF, Locked
from ...models import Event
from ...models.delivery import UNFORMED
from .. import rescue, sql
from ..deliver import quiet
from ..each import each_or_alone, portions
from ..registry import Lost, Registration
from ..walks import config_contexts
from . import claim, components, render
from .matching import Matched, accepts, match
from .put_off import PutOff
from .render import Renderer, Shown
from .undecided import Undecided

logger = logging.getLogger('webhooks.dispatch')

# JSON, UTF-8 or PostgreSQL refuses a value: an event with such an error fails alone.
NOT_STORED = (DataError, ValueError)

# Deliveries that are made together.
DELIVERIES_PER_TRANSACTION = 1000
# After this time no further slice of a batch is rendered. The rest is for the next batch, with newer changes.
BATCH_SECONDS = 0.3

# The delivery is in no change set, or is the first of its set in this statement.
LEADS = '(s.change_set IS NULL OR row_number() OVER (PARTITION BY w.id, s.change_set ORDER BY v.position) = 1)'

# Make a delivery for each pair of a webhook and an event: undecided, resting, or ready. One of the deliveries for a
# change set is ready, and the rest, which follow it, are held (engine/deliver/change_sets.py). What an event rule sends
# is not expanded: like a test, it has no transaction.
MAKE_DELIVERIES = f"""
    INSERT INTO webhooks_delivery (uuid, webhook_id, event_id, object_type_id, object_id, sequence,
        expanded, status, error, created, due_at, waits_until, expires_at, attempt_count, listed, backfill, change_set,
        part)
    SELECT gen_random_uuid(), w.id, e.id, e.object_type_id, e.object_id, e.sequence,
        w.expand <> '{{}}' AND (e.transaction_id <> 0 OR e.test),
        CASE WHEN v.undecided THEN 'undecided' WHEN NOT {LEADS} THEN 'held' WHEN q.latest IS NOT NULL THEN 'resting'
            ELSE 'pending' END,
        '', now(), CASE WHEN NOT v.undecided AND {LEADS} THEN {quiet.DUE_AT} END,
        CASE WHEN NOT v.undecided THEN q.latest END, now() + make_interval(secs => %(expire_after)s), 0, false,
        %(are_new)s AND NOT e.urgent
            AND (e.backfill_for IS NOT NULL OR coalesce(e.caused_by ?| %(sources)s::text[], false)),
        s.change_set, CASE WHEN s.change_set IS NOT NULL THEN %(unformed)s END
    FROM unnest(%(webhooks)s::bigint[], %(events)s::bigint[], %(undecided)s::bool[]) WITH ORDINALITY
        AS v(webhook_id, event_id, undecided, position)
    JOIN webhooks_event e ON e.id = v.event_id JOIN webhooks_webhook w ON w.id = v.webhook_id
    CROSS JOIN LATERAL (
        SELECT CASE WHEN w.change_set AND e.transaction_id <> 0 AND e.backfill_for IS NULL AND e.caused_by IS NULL
                    AND e.error = '' THEN e.transaction_id END AS change_set, now() AS since
    ) s
    LEFT JOIN LATERAL ({quiet.WINDOW}) q ON %(are_new)s
    ORDER BY v.position
    RETURNING id, webhook_id, event_id"""


class Dispatcher:
    """Dispatches for one worker. `suspects`: it takes suspects only, one at a time and without a time limit.

    `keep_alive` is called while it makes progress.
    """

    def __init__(
        self, registration: Registration, keep_alive: Callable[[], object] = lambda: None, *, suspects: bool = False
    ) -> None:
        self._registration = registration
        self._keep_alive = keep_alive
        self._take = claim.take_suspects if suspects else claim.Reading().take
        self._renderer = Renderer(self._live, limit=not suspects)
        self._undecided = None if suspects else Undecided()

    def batch(self) -> int:
        """Dispatch a batch of events, and decide some deliveries. Returns how many of both were done.

        Each event's data are saved, with a delivery for each webhook that takes it. If PostgreSQL interrupts the
        dispatch, that counts as a death of this worker, unless it waited for a lock. If this worker was declared dead,
        it begins anew.
        """
        return self._dispatch_some() + self._decide_some()

    def _dispatch_some(self) -> int:
        try:
            return self._batch()
        except BROKEN_OFF as error:
            sql.recover(error)
            # While our indexes are rebuilt (REINDEX), each event waits for that. None is to blame.
            if not sql.is_lock_timeout(error):
                self._let_go()
        except (RedisError, Locked) as error:
            sql.recover(error)
        except Lost:
            logger.warning('worker=%s lost: it begins anew', self._registration.pk)
            self._registration.begin()
        return 0

    def _decide_some(self) -> int:
        """Decide some undecided deliveries, and return how many. If that is interrupted, no event is to blame."""
        with sql.may_break_off(RedisError, Locked):
            return self._undecided.step() if self._undecided else 0
        return 0

    def _live(self) -> None:
        self._keep_alive()
        self._registration.beat()

    def _let_go(self) -> None:
        """Rescue this worker's own events like those of a dead one, and begin anew.

        An event that interrupts every transaction becomes a suspect this way, and no longer stops other events.
        """
        with sql.may_break_off():
            rescue.rescue(self._registration.name)
            self._registration.begin()

    def _batch(self) -> int:
        with sql.transaction():
            events = self._take(self._registration)
        if events:
            self._dispatch(events)
        return len(events)

    def _dispatch(self, events: Sequence[Event]) -> None:
        put_off = PutOff()
        with sql.reading():
            matched = match(events, put_off)
        matches, changed, sources = matched.webhooks, matched.changed, matched.sources
        self._record_owner_updates(changed, put_off)
        # At once, as objects with other data need not wait for an event that is put off. That one comes again each
        # second. If each time were noted, all owners would be walked again.
        again = _seen_again(sources)
        config_contexts.note([event for event in sources if event.pk not in again])
        config_contexts.learn(matched.unreported)
        of_owners = [event for event in events if event.caused_by and matches[event.pk]]
        waiting = components.take(of_owners, [event.pk for event in events], self._registration)
        # If a component follows in the next batch, it must find the creation of its owner. So that event stays.
        kept = {event.pk for event in changed if components.is_new_owner(event)}
        kept |= {event.pk for event in events if event in put_off}
        unwanted = {event.pk for event in events if event.pk not in kept and not matches[event.pk]}
        config_contexts.note([event for event in sources if event.pk in again & unwanted])
        claim.discard(unwanted)
        wanted = [event for event in events if event.pk not in waiting | unwanted]
        until = time.monotonic() + BATCH_SECONDS
        for part in self._renderer.render(sorted(wanted, key=attrgetter('sequence')), matches, put_off):
            decided, is_all = _decide([one for one in part if one.event not in put_off], matched)
            config_contexts.note([one.event for one in decided if one.event.pk in again])
            for some in portions(
                decided, lambda one: len(one.webhooks) + len(one.undecided), DELIVERIES_PER_TRANSACTION
            ):
                each_or_alone(some, self._make, self._make_failed, NOT_STORED)
            if not is_all or time.monotonic() > until:
                break

    def _record_owner_updates(self, changed: Sequence[Event], put_off: PutOff) -> None:
        try:
            components.record_owner_updates(changed)
        except Locked as error:
            for event in changed:
                put_off.add(event, error)

    def _make(self, going: Sequence[Shown]) -> Sequence[None]:
        with sql.transaction():
            self._registration.beat()
            render.save(going)
            config_contexts.store_sent((one.event, one.data) for one in going if one.shows_context_to_all)
            pairs = [(webhook.pk, one.event.pk) for one in going for webhook in one.webhooks]
            undecided = [(webhook.pk, one.event.pk) for one in going for webhook in one.undecided]
            make_deliveries(pairs, undecided, are_new=True)
        return ()

    def _make_failed(self, shown: Shown, error: Exception) -> None:
        # Without data there is nothing to evaluate: each webhook gets a delivery that fails.
        webhooks = [*shown.webhooks, *shown.undecided]
        self._make([replace(render.failed(shown.event, error), webhooks=webhooks)])


def _seen_again(sources: Sequence[Event]) -> set[int]:
    """Return the ids of events that an earlier batch had, or may have had, and of later ones of their objects.

    That batch may have ended before it noted them. So they are noted once more, right before they are dispatched.
    """
    objects = {(event.object_type_id, event.object_id) for event in sources if event.retry_at is not None}
    return {event.pk for event in sources if (event.object_type_id, event.object_id) in objects}


def _decide(part: Sequence[Shown], matched: Matched) -> tuple[list[Shown], bool]:
    """Note which webhooks take each event, for as many events as the time allows, and return these.

    Returns also whether that was all.
    """
    until = time.monotonic() + BATCH_SECONDS
    for number, shown in enumerate(part, 1):
        verdicts = [(webhook, accepts(webhook, shown)) for webhook in matched.webhooks[shown.event.pk]]
        shown.webhooks = [webhook for webhook, verdict in verdicts if verdict]
        shown.undecided = [webhook for webhook, verdict in verdicts if verdict is None]
        shown.skipped = len(verdicts) - len(shown.webhooks) - len(shown.undecided)
        asking = matched.derived.get(shown.event.pk, ())
        shown.shows_context_to_all = bool(asking) and all(one in shown.webhooks for one in asking)
        if time.monotonic() > until:
            return list(part[:number]), number == len(part)
    return list(part), True


def make_deliveries(
    pairs: Sequence[tuple[int, int]], undecided: Sequence[tuple[int, int]] = (), *, are_new: bool = False
) -> list[tuple[int, int, int]]:
    """Make a delivery for each (webhook id, event id): undecided ones, and those in `pairs`.

    The latter are due at once, unless they are held in a change set. Returns (id, webhook id, event id) of each
    delivery. A deleted webhook or event gets none. `are_new`: nobody asked to send them again. They wait for quiet.
    Backfills and changed config contexts are marked, so that changes go before them. Urgent ones are never marked.
    """
    every = [*pairs, *undecided]
    if not every:
        return []
    webhooks, events = map(list, zip(*every, strict=True))
    is_undecided = [False] * len(pairs) + [True] * len(undecided)
    parameters = {
        'webhooks': webhooks, 'events': events, 'undecided': is_undecided, 'unformed': UNFORMED,
        'are_new': are_new, 'sources': list(SOURCES),
    }  # fmt: skip
    return sql.fetch(MAKE_DELIVERIES, {**parameters, 'expire_after': conf.get().expire_after})

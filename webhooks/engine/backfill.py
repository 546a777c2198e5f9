"""Backfills: a webhook is sent everything as it is now, a slice of a model's objects at a time.

A slice is recorded (outbox/restating.py) and is dispatched, sent and retried as changes are, for the one webhook. The
next slice is cut when little of the ones before is left. So neither memory nor the outbox grow with the number of
objects, and a slow endpoint holds up its own backfill only. Events and cursor are written in one transaction: whoever
is killed repeats nothing and loses nothing.

How much of it is sent while others wait, says share.py.
"""

import logging
import random
import time
from collections import Counter
from collections.abc import Sequence
from datetime import datetime

from django.contrib.contenttypes.models import ContentType
from django.db import DEFAULT_DB_ALIAS
from django.db.models import F, Model
from django.utils.translation import gettext as _

from ..choices import BackfillStateChoices
from ..exceptions import DefinitionError
from ..interruptions import BROKEN_OFF, INTERRUPTIONS
from ..models import Backfill
from ..outbox import restating
from ..storable import storable
from . import finding, lanes, notifications, ordering, selection, sql
from .share import FLOOR

logger = logging.getLogger('webhooks.backfill')

RUNNING, COMPLETED, FAILED, CANCELED = (
    BackfillStateChoices.RUNNING,
    BackfillStateChoices.COMPLETED,
    BackfillStateChoices.FAILED,
    BackfillStateChoices.CANCELED,
)

# Objects of a slice: their rows are locked together, for some milliseconds.
SLICE = 200
# What was locked comes at the end. Where it is so much, it goes before what comes next: each slice writes it.
MOST_SKIPPED = 10_000
# The next slice is cut when less than this is left of those before: of the webhook's in deliveries and in events.
MOST_WAITING, MOST_UNDISPATCHED = 600, SLICE
# Seconds until the next look where no backfill is running.
REST = 1.0
# Others have waited for a slice: for so many times as long none is cut, where as many events of anybody wait to be
# dispatched. After so many seconds, which only a slow filter takes, none of its webhook is, whatever waits.
REST_AFTER, SLOW = 9, 0.25
# {id of a webhook: until when, by time.monotonic()}
_rests: dict[int, float] = {}
# How many times in a row a filter is too slow until it ends its backfill: PostgreSQL may have been slow itself.
MOST_SLOW = 3
# By the id of the webhook, and when its backfill was started.
_times_slow: Counter[tuple[int, datetime]] = Counter()

# How many objects were recorded, None: nothing was done.
Done = int | None

WAITING = f"""
    SELECT coalesce(sum(d.event_count), 0)::int FROM (
        SELECT event_count FROM webhooks_delivery
        WHERE webhook_id = b.webhook_id AND backfill AND status IN ('pending', 'sending') LIMIT {MOST_WAITING}
    ) d"""

# Backfills `b` of which a slice can be cut, or that may have come to their end. A webhook that is suspended is probed
# with what waits; where all of that has expired, with a slice.
CAN_GO_ON = f"""
    webhooks_backfill b JOIN webhooks_webhook w ON w.id = b.webhook_id
    JOIN webhooks_health h ON h.webhook_id = w.id
    WHERE b.state = '{RUNNING}' AND w.enabled AND NOT w.paused AND (
        h.suspended_since IS NULL OR h.probe_at <= now() AND NOT EXISTS (
            SELECT 1 FROM webhooks_delivery d WHERE d.webhook_id = w.id AND d.status IN ('pending', 'sending')
        )
      )
      AND ({WAITING}) < CASE
        WHEN b.position < cardinality(b.object_types) OR b.skipped <> '{{}}' THEN {MOST_WAITING} ELSE 1 END"""

FIND = f"""
    SELECT b.webhook_id FROM {CAN_GO_ON}
      AND b.webhook_id NOT IN (
        SELECT backfill_for FROM webhooks_event WHERE dispatched_at IS NULL AND backfill_for IS NOT NULL
        GROUP BY backfill_for HAVING count(*) >= {MOST_UNDISPATCHED}
      )"""
# Whether any is running, and whether there is enough to dispatch: not what somebody has in hand, or had when it died.
LOOK = f"""
    SELECT EXISTS (SELECT 1 FROM webhooks_backfill WHERE state = '{RUNNING}'),
        EXISTS (
            SELECT 1 FROM webhooks_event WHERE dispatched_at IS NULL AND lease IS NULL AND dispatch_count = 0
            OFFSET {MOST_UNDISPATCHED - 1}
        )"""

# What was not tried yet of a webhook's backfill. Others may wait for it.
UNTRIED = f"""
    SELECT d.id, d.event_count, d.created FROM webhooks_delivery d
    WHERE d.webhook_id = {{webhook}} AND d.backfill AND {sql.pending('d')} AND {ordering.UNTRIED}"""
UNTRIED_OF_ONE = UNTRIED.format(webhook='%s')
REMOVE = 'DELETE FROM webhooks_delivery WHERE id = ANY(%s)'
# What a dispatcher has made while the backfill was canceled. No claim takes it (claims.py).
LEFT_BEHIND = f"""
    SELECT b.webhook_id FROM webhooks_backfill b
    WHERE b.state = '{CANCELED}' AND EXISTS ({UNTRIED.format(webhook='b.webhook_id')})"""


class Backfills:
    """The backfills as a job goes on with them."""

    def __init__(self) -> None:
        self._rests_until = 0.0
        self._pauses_until = 0.0

    def cut(self) -> bool:
        """Record a slice of one backfill, or end one. Returns whether anything was done."""
        if time.monotonic() < self._rests_until:
            return False
        try:
            return self._cut()
        except BROKEN_OFF as error:
            lanes.recover(error)
            self._rests_until = time.monotonic() + REST
            return False

    def _cut(self) -> bool:
        ((is_running, is_enough),) = sql.fetch(LOOK)
        if not is_running:
            self._rests_until = time.monotonic() + REST
        if not is_running or (is_enough and time.monotonic() < self._pauses_until):
            return False
        found = [pk for pk in sql.fetch_column(FIND) if _rests.get(pk, 0.0) <= time.monotonic()]
        return any(map(self._go_on, random.sample(found, len(found))))

    def _go_on(self, webhook_id: int) -> bool:
        began, done = time.monotonic(), None
        try:
            done = _go_on(webhook_id)
        finally:
            now = time.monotonic()
            rest = REST_AFTER * (now - began)
            self._pauses_until = now + max(rest, (done or 0) / FLOOR)
            if now - began > SLOW:
                _rests[webhook_id] = now + rest
        return done is not None


def remove_untried(webhook_id: int, now: datetime) -> list[tuple[int, datetime]]:
    """Remove the deliveries that were not tried. Called in the lane. Returns (objects, when it was made) of each."""
    untried = sql.fetch(UNTRIED_OF_ONE, [webhook_id])
    ids = [pk for pk, *_ in untried]
    ordering.unpark(ids, now)
    sql.execute(REMOVE, [ids])
    return [(count, created) for _pk, count, created in untried]


def look_behind_untried(webhook_id: int, now: datetime) -> None:
    """Look anew at what waits for the deliveries that were not tried, since they are held now. Called in the lane."""
    ordering.unpark([pk for pk, *_ in sql.fetch(UNTRIED_OF_ONE, [webhook_id])], now)


def take_back() -> bool:
    """Remove what was made while its backfill was canceled. Returns whether there was any."""
    with lanes.turn() as now:
        held = lanes.take(sql.fetch_column(LEFT_BEHIND))
        for webhook_id in held:
            remove_untried(webhook_id, now)
    return bool(held)


def _go_on(webhook_id: int) -> Done:
    backfill = Backfill.objects.select_related('webhook').filter(pk=webhook_id, state=RUNNING).first()
    if backfill is None:
        return None
    try:
        done = _step(backfill)
    except INTERRUPTIONS:
        raise
    except Exception as error:
        if isinstance(error, finding.FilterTooSlow) and _note_slow(backfill):
            return None
        logger.exception('webhook=%s backfill=failed', webhook_id)
        reason = str(error) if isinstance(error, DefinitionError) else f'{type(error).__name__}: {error}'
        return _end(backfill, FAILED, storable(reason))
    _times_slow.pop((webhook_id, backfill.started_at), None)
    return done


def _note_slow(backfill: Backfill) -> bool:
    """Count that the filter was too slow. Returns whether it is tried again."""
    one = (backfill.pk, backfill.started_at)
    _times_slow[one] += 1
    if _times_slow[one] == MOST_SLOW:
        del _times_slow[one]
        return False
    logger.warning('webhook=%s backfill=slow PostgreSQL took too long to filter (it is tried again)', backfill.pk)
    return True


def _step(backfill: Backfill) -> Done:
    is_at_end = backfill.position == len(backfill.object_types)
    if backfill.skipped and (is_at_end or len(backfill.skipped) >= MOST_SKIPPED):
        return _come_back(backfill)
    if is_at_end:
        return None if backfill.count_open() else _end(backfill, COMPLETED)
    model = _model(backfill, backfill.object_types[backfill.position])
    pks, last_id = finding.after(model, backfill.query, backfill.last_id, SLICE) if model else ([], None)
    if last_id is None:
        return _move(backfill, position=F('position') + 1, last_id=0)
    if not pks:
        return _move(backfill, last_id=last_id)
    return _record(backfill, model, pks, last_id, backfill.skipped)


def _come_back(backfill: Backfill) -> Done:
    """Record what was locked of one object type."""
    object_type_id = backfill.skipped[0][0]
    tried = set([one[1] for one in backfill.skipped if one[0] == object_type_id][:SLICE])
    left = [one for one in backfill.skipped if one[0] != object_type_id or one[1] not in tried]
    model = _model(backfill, object_type_id)
    pks = finding.among(model, backfill.query, tried) if model else []
    if not pks:
        return _move(backfill, skipped=left)
    recorded = _record(backfill, model, pks, backfill.last_id, left)
    return recorded if recorded or len(pks) < len(tried) else None


def _model(backfill: Backfill, object_type_id: int) -> type[Model] | None:
    """Return the model, None where the webhook does not ask for it any more."""
    if not backfill.webhook.object_types.filter(pk=object_type_id).exists():
        return None
    model = ContentType.objects.get_for_id(object_type_id).model_class()
    if model is None:
        raise DefinitionError(selection.MODELS, _('A model is no longer installed.'))
    return model


def _record(
    backfill: Backfill, model: type[Model], pks: Sequence[int], last_id: int, skipped: Sequence[Sequence[int]]
) -> int:
    count = restating.restate(
        model,
        pks,
        backfill.pk,
        _as_read(backfill),
        last_id,
        _array(skipped),
        with_before=backfill.webhook.needs_before,
    )
    logger.debug('webhook=%s backfill=%s/%s', backfill.pk, backfill.recorded + count, backfill.total)
    return count


def _as_read(backfill: Backfill) -> str:
    """Return, in SQL, that the row is running, and where it was when it was read."""
    return f"""
        webhook_id = {backfill.pk:d} AND state = '{RUNNING}' AND started_at = '{backfill.started_at.isoformat()}'
        AND position = {backfill.position:d} AND last_id = {backfill.last_id:d}
        AND skipped = {_array(backfill.skipped)}"""


def _array(skipped: Sequence[Sequence[int]]) -> str:
    pairs = ','.join(f'{{{object_type_id:d},{pk:d}}}' for object_type_id, pk in skipped)
    return f"'{{{pairs}}}'::bigint[]"


def _move(backfill: Backfill, **changes: object) -> Done:
    """Change nothing but the backfill itself, where it is still as it was read."""
    same = {name: getattr(backfill, name) for name in ('started_at', 'position', 'last_id', 'skipped')}
    as_read = Backfill.objects.using(DEFAULT_DB_ALIAS).filter(pk=backfill.pk, state=RUNNING, **same)
    return 0 if as_read.update(**changes) else None


def _end(backfill: Backfill, state: str, error: str = '') -> Done:
    """End it, and tell people, in one transaction."""
    with lanes.turn() as now:
        done = _move(backfill, state=state, error=error, finished_at=now)
        if done is not None:
            told = notifications.BACKFILLED if state == COMPLETED else notifications.BACKFILL_FAILED
            notifications.tell(backfill.webhook, told)
    return done

"""Backfills: a webhook is sent everything as it is now, a slice of a model's objects at a time.

A slice is recorded (outbox/restating.py) and is dispatched, sent and retried as changes are, for the one webhook. The
next one is cut when little of those before is left. So neither memory nor the outbox grow with the number of objects,
and a slow endpoint holds up its own backfill only. Events and cursor are written in one transaction: a process that is
killed repeats nothing and loses nothing. How much is sent while others wait, the owner of the lanes decides.
"""

import logging
import random
import time
from collections import Counter
from datetime import datetime

from django.contrib.contenttypes.models import ContentType
from django.db import DEFAULT_DB_ALIAS
from django.db.models import Manager, Model, QuerySet
from django.db.models.expressions import RawSQL
from django.utils.translation import gettext as _

from ...choices import BackfillStateChoices
from ...exceptions import DefinitionError
from ...interruptions import BROKEN_OFF, INTERRUPTIONS
from ...models import Backfill
from ...outbox import restating
from ...storable import storable
from .. import notifications, sql, transactions
from . import filter as objects
from .filter import FilterTooSlow

logger = logging.getLogger('webhooks.backfill')

COMPLETED, FAILED = BackfillStateChoices.COMPLETED, BackfillStateChoices.FAILED

# Objects of a slice: their rows are locked together, for some milliseconds.
SLICE = 200
# The next one is cut when less of those before is left.
MOST_OPEN = 600
# What was locked comes at the end. Where it is so much, it goes before what comes next: each slice writes it.
MOST_SKIPPED = 10_000
# Seconds without a slice after one was broken off.
REST = 1.0
# Objects a second that are recorded while a slice or more, of anybody, is to be dispatched.
FLOOR = 10.0
# After so many seconds, which only a slow filter takes, none of its webhook is cut for so many times as long. After so
# many times in a row PostgreSQL itself has not been slow.
SLOW, REST_AFTER, MOST_SLOW = 0.25, 9, 3

# How many objects were recorded, None: nothing was done.
Done = int | None

# Backfills of which a slice can be cut, or that have come to their end; and in which version they are.
READY = f"""
    SELECT b.webhook_id, b.xmin::text FROM webhooks_backfill b JOIN webhooks_webhook w ON w.id = b.webhook_id
    WHERE b.state = 'running' AND w.enabled AND NOT w.paused AND (
        SELECT count(*) FROM (
            SELECT FROM webhooks_event e WHERE e.backfill_for = b.webhook_id AND e.dispatched_at IS NULL
            UNION ALL
            SELECT FROM webhooks_delivery d WHERE d.webhook_id = b.webhook_id AND d.backfill AND {sql.pending('d')}
            LIMIT {MOST_OPEN}
        ) is_open
    ) < CASE WHEN b.position < cardinality(b.object_types) OR b.skipped <> '{{}}' THEN {MOST_OPEN} ELSE 1 END"""

# Whether there is enough to dispatch: not what somebody has in hand, or had when it died.
IS_ENOUGH = f"""
    SELECT EXISTS (
        SELECT FROM webhooks_event
        WHERE dispatched_at IS NULL AND lapses = 0 AND id <> ALL(ARRAY(SELECT unnest(events) FROM webhooks_worker))
        OFFSET {SLICE - 1}
    )"""


class Backfills:
    """The backfills, as a process goes on with them that dispatches."""

    def __init__(self) -> None:
        self._rests_until = 0.0
        self._pauses_until = 0.0
        # Until when none of a webhook is cut, by its id; and how often its filter was too slow.
        self._slow_until: dict[int, float] = {}
        self._times_slow: Counter[tuple[int, datetime]] = Counter()

    def cut(self) -> bool:
        """Record a slice of one backfill, or end one. Returns whether anything was done."""
        now = time.monotonic()
        if now < self._rests_until:
            return False
        try:
            ready = [one for one in sql.fetch(READY) if self._slow_until.get(one[0], 0.0) <= now]
            if not ready or (now < self._pauses_until and sql.fetch_value(IS_ENOUGH)):
                return False
            return any(self._go_on(*one) for one in random.sample(ready, len(ready)))
        except BROKEN_OFF as error:
            transactions.recover(error)
            self._rests_until = time.monotonic() + REST
            return False

    def _go_on(self, webhook_id: int, version: str) -> bool:
        backfill = _in_version(Backfill.objects.select_related('webhook'), webhook_id, version).first()
        if backfill is None:
            return False
        began = time.monotonic()
        try:
            done = self._try(backfill)
        finally:
            took = time.monotonic() - began
            if took > SLOW:
                self._slow_until[webhook_id] = began + took + REST_AFTER * took
        self._pauses_until = time.monotonic() + (done or 0) / FLOOR
        return done is not None

    def _try(self, backfill: Backfill) -> Done:
        key = backfill.pk, backfill.started_at
        try:
            done = _step(backfill)
        except INTERRUPTIONS:
            raise
        except Exception as error:
            self._times_slow[key] += (is_slow := isinstance(error, FilterTooSlow))
            if is_slow and self._times_slow[key] < MOST_SLOW:
                logger.warning('webhook=%s backfill=slow reason="%s" (it is tried again)', backfill.pk, error)
                return None
            logger.exception('webhook=%s backfill=failed', backfill.pk)
            reason = str(error) if isinstance(error, DefinitionError) else f'{type(error).__name__}: {error}'
            done = _end(backfill, FAILED, storable(reason))
        del self._times_slow[key]
        return done


def _step(backfill: Backfill) -> Done:
    is_at_end = backfill.position == len(backfill.object_types)
    if backfill.skipped and (is_at_end or len(backfill.skipped) >= MOST_SKIPPED):
        return _come_back(backfill)
    if is_at_end:
        return _end(backfill, COMPLETED)
    model = _model(backfill, backfill.object_types[backfill.position])
    pks, last_id = objects.after(model, backfill.query, backfill.last_id, SLICE) if model else ([], None)
    if last_id is None:
        return _move(backfill, position=backfill.position + 1, last_id=0)
    if not pks:
        return _move(backfill, last_id=last_id)
    return restating.restate(backfill, model, pks, last_id, backfill.skipped)


def _come_back(backfill: Backfill) -> Done:
    """Record what was locked of one object type."""
    object_type_id = backfill.skipped[0][0]
    tried = [one for one in backfill.skipped if one[0] == object_type_id][:SLICE]
    left = [one for one in backfill.skipped if one not in tried]
    model = _model(backfill, object_type_id)
    pks = objects.among(model, backfill.query, [pk for _type, pk in tried]) if model else []
    if not pks:
        return _move(backfill, skipped=left)
    recorded = restating.restate(backfill, model, pks, backfill.last_id, left)
    return recorded if recorded or len(pks) < len(tried) else None


def _model(backfill: Backfill, object_type_id: int) -> type[Model] | None:
    """Return the model, None where the webhook does not ask for it any more."""
    if not backfill.webhook.object_types.filter(pk=object_type_id).exists():
        return None
    model = ContentType.objects.get_for_id(object_type_id).model_class()
    if model is None:
        raise DefinitionError('object_types', _('A model is no longer installed.'))
    return model


def _in_version(rows: Manager | QuerySet, webhook_id: int, version: str) -> QuerySet[Backfill]:
    """Return the backfill as it is in the version, if it still is: each UPDATE makes another one."""
    versions = rows.using(DEFAULT_DB_ALIAS).annotate(version=RawSQL('webhooks_backfill.xmin::text', ()))
    return versions.filter(pk=webhook_id, version=version)


def _move(backfill: Backfill, **changes: object) -> Done:
    """Change nothing but the backfill itself, where it is still as it was read."""
    return 0 if _in_version(Backfill._base_manager, backfill.pk, backfill.version).update(**changes) else None


def _end(backfill: Backfill, state: str, error: str = '') -> Done:
    """End it, and tell people, in one transaction."""
    with transactions.short() as now:
        done = _move(backfill, state=state, error=error, finished_at=now)
        if done is not None:
            told = notifications.BACKFILLED if state == COMPLETED else notifications.BACKFILL_FAILED
            notifications.tell(backfill.webhook, told)
    return done

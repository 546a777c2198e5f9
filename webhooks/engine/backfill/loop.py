"""Records slices of backfills. The next is cut when few events of the last are left.

Events and cursor share a transaction: a killed process repeats and loses nothing.
"""

import logging
import random
import time

from django.contrib.contenttypes.models import ContentType
from django.utils.translation import gettext as _

from ...choices import BackfillStateChoices
from ...exceptions import DefinitionError
from ...interruptions import BROKEN_OFF, INTERRUPTIONS
from ...models import Backfill
from ...outbox import restating
from ...storable import storable
from .. import notifications, sql, transactions
from . import filter as objects

logger = logging.getLogger('webhooks.backfill')

RUNNING, COMPLETED, FAILED = BackfillStateChoices.RUNNING, BackfillStateChoices.COMPLETED, BackfillStateChoices.FAILED

# Objects of a slice: their rows are locked together.
SLICE = 200
MOST_OPEN = 600
ROWS = 1_000
# After a slice slower than SLOW seconds, a backfill rests REST times as long.
SLOW, REST = 0.15, 9

READY = f"""
    SELECT b.webhook_id FROM webhooks_backfill b JOIN webhooks_webhook w ON w.id = b.webhook_id
    WHERE b.state = 'running' AND w.enabled AND NOT w.paused AND (
        SELECT count(*) FROM (
            SELECT FROM webhooks_event e WHERE e.backfill_for = b.webhook_id AND e.dispatched_at IS NULL
            UNION ALL
            SELECT FROM webhooks_delivery d WHERE d.webhook_id = b.webhook_id AND d.backfill AND d.status = 'pending'
            LIMIT {MOST_OPEN}
        ) is_open
    ) < CASE WHEN b.position < cardinality(b.object_types) THEN {MOST_OPEN} ELSE 1 END"""


class Backfills:
    def __init__(self) -> None:
        # {webhook id: end of its rest}
        self._rests: dict[int, float] = {}

    def cut(self) -> bool:
        """Record a slice for one backfill, or end one. Returns whether it did anything."""
        now = time.monotonic()
        ready = [pk for pk in sql.fetch_column(READY) if self._rests.get(pk, 0.0) <= now]
        found = list(Backfill.objects.select_related('webhook').filter(pk__in=ready, state=RUNNING)) if ready else []
        random.shuffle(found)
        return any(self._go_on(backfill) for backfill in found)

    def _go_on(self, backfill: Backfill) -> bool:
        began = time.monotonic()
        try:
            return _step(backfill)
        except BROKEN_OFF as error:
            transactions.recover(error)
            return False
        except INTERRUPTIONS:
            raise
        except Exception as error:
            logger.exception('webhook=%s backfill=failed', backfill.pk)
            reason = str(error) if isinstance(error, DefinitionError) else f'{type(error).__name__}: {error}'
            return _end(backfill, FAILED, storable(reason))
        finally:
            if (took := time.monotonic() - began) > SLOW:
                self._rests[backfill.pk] = time.monotonic() + REST * took


def _step(backfill: Backfill) -> bool:
    if backfill.position == len(backfill.object_types):
        return _end(backfill, COMPLETED)
    object_type_id = backfill.object_types[backfill.position]
    if not backfill.webhook.object_types.filter(pk=object_type_id).exists():
        return _move(backfill, position=backfill.position + 1, last_id=0)
    model = ContentType.objects.get_for_id(object_type_id).model_class()
    if model is None:
        raise DefinitionError('object_types', _('A model is no longer installed.'))
    pks, last_id = objects.after(model, backfill.query, backfill.last_id, SLICE, ROWS)
    if last_id is None:
        return _move(backfill, position=backfill.position + 1, last_id=0)
    if not pks:
        return _move(backfill, last_id=last_id)
    return restating.restate(backfill, model, pks, last_id)


def _move(backfill: Backfill, **changes: object) -> bool:
    same = {name: getattr(backfill, name) for name in ('started_at', 'position', 'last_id')}
    return bool(Backfill._base_manager.filter(pk=backfill.pk, state=RUNNING, **same).update(**changes))


def _end(backfill: Backfill, state: str, error: str = '') -> bool:
    with transactions.short() as now:
        is_ended = _move(backfill, state=state, error=error, finished_at=now)
        if is_ended:
            told = notifications.BACKFILLED if state == COMPLETED else notifications.BACKFILL_FAILED
            notifications.tell(backfill.webhook, told)
    return is_ended

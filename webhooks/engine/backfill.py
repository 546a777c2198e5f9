"""Records all present objects for one webhook, slice by slice: a backfill. An idle dispatcher does it.

It waits for the filters, which are NetBox's own. So one that is slow, hangs or fails ends its backfill.
"""

import logging
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from importlib import import_module

from django.conf import settings
from django.contrib.contenttypes.models import ContentType
from django.db import DEFAULT_DB_ALIAS, OperationalError
from django.db.models import F, Model, QuerySet
from django.http import QueryDict
from django.utils.translation import gettext as _
from netbox.registry import registry
from psycopg.errors import QueryCanceled

from .. import patience
from ..choices import BackfillStateChoices
from ..exceptions import DefinitionError
from ..interruptions import BROKEN_OFF, INTERRUPTIONS
from ..models import Backfill
from ..outbox import restating
from ..storable import is_storable, storable
from . import notifications, sql
from .each import rest_after

logger = logging.getLogger('webhooks.backfill')

# The field that a DefinitionError names if the filter is wrong.
FILTER = 'filter'

RUNNING = BackfillStateChoices.RUNNING
COMPLETED = BackfillStateChoices.COMPLETED
FAILED = BackfillStateChoices.FAILED

# Objects that a slice looks at. Objects that the filter leaves out count too.
OBJECTS_PER_SLICE = 200
# While a backfill has this many undispatched events and unsent deliveries, no further slice is recorded.
MAX_OPEN_OBJECTS = 600
# A filter may keep the dispatcher waiting: milliseconds in PostgreSQL, and seconds in all, for a slice.
FILTER_MS = 3_000
FILTER_SECONDS = 4.0
# After an interruption a backfill rests, so that other backfills have their turn.
ERROR_REST_SECONDS = 1.0

# The running backfills of active webhooks that can go on: few of their objects are open, or, at the end, none.
READY_BACKFILLS = """
    SELECT b.webhook_id FROM webhooks_backfill b JOIN webhooks_webhook w ON w.id = b.webhook_id
    WHERE b.state = 'running' AND w.enabled AND NOT w.paused AND (
        SELECT count(*) FROM (
            SELECT FROM webhooks_event e
            WHERE e.backfill_for = b.webhook_id AND e.dispatched_at IS NULL AND NOT e.urgent
            UNION ALL
            SELECT FROM webhooks_delivery d JOIN webhooks_event e ON e.id = d.event_id
            WHERE d.webhook_id = b.webhook_id AND d.backfill AND d.status IN ('pending', 'undecided')
              AND e.backfill_for IS NOT NULL
            LIMIT %(most)s
        ) is_open
    ) < CASE WHEN b.position < cardinality(b.object_types) THEN %(most)s ELSE 1 END"""

# Limits a filter's statements in the open transaction. If a table is locked, that is not the filter's fault: it ends
# sooner, with another error.
BOUND_FILTER = f"""
    SELECT set_config('statement_timeout', %s::text, true),
        set_config('lock_timeout', '{sql.TABLE_LOCK_MS}', true)"""


class Backfills:
    """All running backfills, as one dispatcher advances them: it knows which ones rest."""

    def __init__(self) -> None:
        # {webhook id: end of its rest, by time.monotonic()}
        self._rests: dict[int, float] = {}

    def cut(self) -> bool:
        """Record a slice of a random backfill as events, or end that backfill. Returns whether anything was done.

        A backfill whose filter or model is at fault gets the state `failed` with its reason. Raises INTERRUPTIONS, but
        not BROKEN_OFF: after that the backfill rests.
        """
        now = time.monotonic()
        ready = [
            pk
            for pk in sql.fetch_column(READY_BACKFILLS, {'most': MAX_OPEN_OBJECTS})
            if self._rests.get(pk, 0.0) <= now
        ]
        found = Backfill.objects.select_related('webhook').filter(pk__in=ready, state=RUNNING).order_by('?')
        return any(self._go_on(backfill) for backfill in found)

    def _go_on(self, backfill: Backfill) -> bool:
        began = time.monotonic()
        try:
            return _step(backfill)
        except BROKEN_OFF as error:
            sql.recover(error)
            self._rests[backfill.pk] = time.monotonic() + ERROR_REST_SECONDS
            return False
        except INTERRUPTIONS:
            raise
        except Exception as error:
            logger.exception('webhook=%s name=%r backfill=failed', backfill.pk, backfill.webhook.name)
            reason = str(error) if isinstance(error, DefinitionError) else f'{type(error).__name__}: {error}'
            return _end(backfill, FAILED, storable(reason))
        finally:
            if rest := rest_after(time.monotonic() - began):
                self._rests[backfill.pk] = time.monotonic() + rest


def _step(backfill: Backfill) -> bool:
    if backfill.position == len(backfill.object_types):
        return _end(backfill, COMPLETED)
    object_type_id = backfill.object_types[backfill.position]
    if not backfill.webhook.object_types.filter(pk=object_type_id).exists():
        return _move(backfill, position=backfill.position + 1, last_id=0)
    model = ContentType.objects.get_for_id(object_type_id).model_class()
    if model is None:
        raise DefinitionError('object_types', _('A model is no longer installed.'))
    pks, last_id = after(model, backfill.query, backfill.last_id, OBJECTS_PER_SLICE)
    if last_id is None:
        return _move(backfill, position=backfill.position + 1, last_id=0)
    if not pks:
        return _move(backfill, last_id=last_id)
    return _record(backfill, model, pks, last_id)


def _record(backfill: Backfill, model: type[Model], pks: Collection[int], last_id: int) -> bool:
    with sql.transaction() as now:
        if not _move(backfill, last_id=last_id):
            return False
        recorded = restating.restate(backfill.webhook, model, pks, now)
        Backfill._base_manager.filter(pk=backfill.pk).update(recorded=F('recorded') + recorded)
    return True


def _move(backfill: Backfill, **changes: object) -> bool:
    """Write the changes to the backfill's row. Returns False if somebody has moved, ended or locked it."""
    same = {name: getattr(backfill, name) for name in ('started_at', 'position', 'last_id')}
    found = Backfill._base_manager.filter(pk=backfill.pk, state=RUNNING, **same)
    with sql.transaction():
        is_mine = found.select_for_update(skip_locked=True).values_list('pk').first()
        return is_mine is not None and bool(found.update(**changes))


def _end(backfill: Backfill, state: str, error: str = '') -> bool:
    with sql.transaction() as now:
        is_ended = _move(backfill, state=state, error=error, finished_at=now)
        if is_ended:
            told = notifications.BACKFILLED if state == COMPLETED else notifications.BACKFILL_FAILED
            notifications.tell((backfill.webhook, told))
    return is_ended


def load() -> None:
    """Import NetBox's pages, which register the filters of its lists. Without it the registry lacks most of them."""
    import_module(settings.ROOT_URLCONF)


def objects(model: type[Model], query: str) -> QuerySet:
    """Return the model's objects that match the query: all if it is blank, each once. It reads no object yet.

    `query` is that of the model's list in NetBox (`status=active&site=bern`). Its keys for order and pages are ignored.
    Raises DefinitionError for the field `filter` if the model has no such filter, or refuses the value.
    """
    everything = model._default_manager.using(DEFAULT_DB_ALIAS).all()
    if not query:
        return everything
    load()
    name = model._meta.label_lower
    filterset_class = registry['filtersets'].get(name)
    if filterset_class is None:
        raise DefinitionError(FILTER, _('Objects of the model {model} cannot be filtered.').format(model=name))
    parameters = QueryDict(query, mutable=True)
    for beside in ('sort', 'page', 'per_page'):
        parameters.pop(beside, None)
    filterset = filterset_class(parameters, queryset=everything)
    if not is_storable([list(pair) for pair in parameters.lists()]):
        raise DefinitionError(FILTER, _('Remove the character that cannot be stored.'))
    unknown = sorted(parameters.keys() - filterset.filters.keys())
    if unknown:
        text = _('The list of the model {model} has no filter {names}.')
        raise DefinitionError(FILTER, text.format(model=name, names=', '.join(unknown)))
    if not filterset.is_valid():
        problems = '; '.join(f'{name}: {" ".join(errors)}' for name, errors in filterset.errors.items())
        raise DefinitionError(FILTER, problems)
    # A filter over many related objects may repeat an object.
    return filterset.qs.distinct()


def after(model: type[Model], query: str, last_id: int, count: int) -> tuple[list[int], int | None]:
    """Return which of the next `count` objects after the key `last_id` match, and the last key that was looked at.

    The key is None at the table's end. Raises DefinitionError if the filter is wrong, or too slow in PostgreSQL;
    TooSlow if a filter takes FILTER_SECONDS; OperationalError if somebody holds a table.
    """
    with _bounded(query):
        matching = objects(model, query)
        following = objects(model, '').filter(pk__gt=last_id).order_by('pk').values_list('pk', flat=True)
        keys = list(following[:count])
        pks = list(matching.filter(pk__in=keys).values_list('pk', flat=True)) if query else keys
    return pks, keys[-1] if keys else None


@contextmanager
def _bounded(query: str) -> Iterator[None]:
    """Limit the time of the block. If it runs out with a filter, that is the filter's error."""
    try:
        with patience.within(FILTER_SECONDS), sql.transaction():
            sql.fetch(BOUND_FILTER, [FILTER_MS])
            yield
    except OperationalError as error:
        if query and isinstance(error.__cause__, QueryCanceled):
            reason = _('PostgreSQL takes too long to find the objects. Use a simpler filter.')
            raise DefinitionError(FILTER, reason) from error
        raise
    except patience.TooSlow as error:
        if query:
            raise
        raise OperationalError(str(error)) from error

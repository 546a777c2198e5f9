"""Backfills: all present objects go to one webhook, slice by slice.

The dispatcher waits for the filters, which are NetBox's own. So one that is slow, hangs or fails ends its backfill.
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

from ..choices import BackfillStateChoices
from ..exceptions import DefinitionError
from ..interruptions import BROKEN_OFF, INTERRUPTIONS
from ..models import Backfill
from ..outbox import restating
from ..storable import is_storable, storable
from . import notifications, sql, time_limit, transactions

logger = logging.getLogger('webhooks.backfill')

FILTER = 'filter'

RUNNING, COMPLETED, FAILED = BackfillStateChoices.RUNNING, BackfillStateChoices.COMPLETED, BackfillStateChoices.FAILED

# Objects that a slice looks at. None follows while so many are open.
SLICE, MOST_OPEN = 200, 600
# PostgreSQL's milliseconds and all seconds for a filter.
MOST, LONGEST = 3_000, 4.0
# Seconds of rest after an error. After a slice slower than SLOW: REST_AFTER times as long.
REST, SLOW, REST_AFTER = 1.0, 0.25, 9

READY_BACKFILLS = """
    SELECT b.webhook_id FROM webhooks_backfill b JOIN webhooks_webhook w ON w.id = b.webhook_id
    WHERE b.state = 'running' AND w.enabled AND NOT w.paused AND (
        SELECT count(*) FROM (
            SELECT FROM webhooks_event e WHERE e.backfill_for = b.webhook_id AND e.dispatched_at IS NULL
            UNION ALL
            SELECT FROM webhooks_delivery d
            WHERE d.webhook_id = b.webhook_id AND d.backfill AND d.status IN ('pending', 'undecided')
            LIMIT %(most)s
        ) is_open
    ) < CASE WHEN b.position < cardinality(b.object_types) THEN %(most)s ELSE 1 END"""

# A locked table is not the filter's fault.
BOUND = "SELECT set_config('statement_timeout', %s::text, true), set_config('lock_timeout', '200', true)"


class Backfills:
    def __init__(self) -> None:
        # {webhook id: end of its rest}
        self._rests: dict[int, float] = {}

    def cut(self) -> bool:
        """Record a slice for one backfill, or end one. Returns whether it did anything."""
        now = time.monotonic()
        ready = [pk for pk in sql.fetch_column(READY_BACKFILLS, {'most': MOST_OPEN}) if self._rests.get(pk, 0.0) <= now]
        found = Backfill.objects.select_related('webhook').filter(pk__in=ready, state=RUNNING).order_by('?')
        return any(self._go_on(backfill) for backfill in found)

    def _go_on(self, backfill: Backfill) -> bool:
        began = time.monotonic()
        try:
            return _step(backfill)
        except BROKEN_OFF as error:
            transactions.recover(error)
            self._rests[backfill.pk] = time.monotonic() + REST
            return False
        except INTERRUPTIONS:
            raise
        except Exception as error:
            logger.exception('webhook=%s backfill=failed', backfill.pk)
            reason = str(error) if isinstance(error, DefinitionError) else f'{type(error).__name__}: {error}'
            return _end(backfill, FAILED, storable(reason))
        finally:
            if (took := time.monotonic() - began) > SLOW:
                self._rests[backfill.pk] = time.monotonic() + REST_AFTER * took


def _step(backfill: Backfill) -> bool:
    if backfill.position == len(backfill.object_types):
        return _end(backfill, COMPLETED)
    object_type_id = backfill.object_types[backfill.position]
    if not backfill.webhook.object_types.filter(pk=object_type_id).exists():
        return _move(backfill, position=backfill.position + 1, last_id=0)
    model = ContentType.objects.get_for_id(object_type_id).model_class()
    if model is None:
        raise DefinitionError('object_types', _('A model is no longer installed.'))
    pks, last_id = after(model, backfill.query, backfill.last_id, SLICE)
    if last_id is None:
        return _move(backfill, position=backfill.position + 1, last_id=0)
    if not pks:
        return _move(backfill, last_id=last_id)
    return _record(backfill, model, pks, last_id)


def _record(backfill: Backfill, model: type[Model], pks: Collection[int], last_id: int) -> bool:
    with transactions.short() as now:
        if not _move(backfill, last_id=last_id):
            return False
        recorded = restating.restate(backfill.webhook, model, pks, now)
        Backfill._base_manager.filter(pk=backfill.pk).update(recorded=F('recorded') + recorded)
    return True


def _move(backfill: Backfill, **changes: object) -> bool:
    """Returns False if somebody has moved, ended or locked it."""
    same = {name: getattr(backfill, name) for name in ('started_at', 'position', 'last_id')}
    found = Backfill._base_manager.filter(pk=backfill.pk, state=RUNNING, **same)
    with transactions.short():
        is_mine = found.select_for_update(skip_locked=True).values_list('pk').first()
        return is_mine is not None and bool(found.update(**changes))


def _end(backfill: Backfill, state: str, error: str = '') -> bool:
    with transactions.short() as now:
        is_ended = _move(backfill, state=state, error=error, finished_at=now)
        if is_ended:
            told = notifications.BACKFILLED if state == COMPLETED else notifications.BACKFILL_FAILED
            notifications.tell(backfill.webhook, told)
    return is_ended


def load() -> None:
    """Import NetBox's pages, which register the filters."""
    import_module(settings.ROOT_URLCONF)


def objects(model: type[Model], query: str) -> QuerySet:
    """Return the model's objects that match the query, all if it is blank. Raises DefinitionError."""
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
    """Return which of the next `count` objects match, and the last key among all of them: None at the table's end."""
    with _bounded(query):
        matching = objects(model, query)
        following = objects(model, '').filter(pk__gt=last_id).order_by('pk').values_list('pk', flat=True)
        keys = list(following[:count])
        pks = list(matching.filter(pk__in=keys).values_list('pk', flat=True)) if query else keys
    return pks, keys[-1] if keys else None


@contextmanager
def _bounded(query: str) -> Iterator[None]:
    """Limit the time. If it runs out with a filter, that is the filter's error."""
    try:
        with time_limit.within(LONGEST), transactions.short():
            sql.fetch(BOUND, [MOST])
            yield
    except OperationalError as error:
        if query and isinstance(error.__cause__, QueryCanceled):
            reason = _('PostgreSQL takes too long to find the objects. Use a simpler filter.')
            raise DefinitionError(FILTER, reason) from error
        raise
    except time_limit.TooSlow as error:
        if query:
            raise
        raise OperationalError(str(error)) from error

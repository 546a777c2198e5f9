"""Finding: which objects does a backfill send next? It takes no longer than others can wait.

A filter is a query of anybody's making, and a plugin's code. It runs in the main thread of a worker, where nothing else
goes on meanwhile. So it is asked about a part of the table at a time. What is too slow all the same, time after time,
hangs or fails ends its own backfill, by DefinitionError.
"""

from collections.abc import Callable, Collection
from functools import partial

from django.db import OperationalError
from django.db.models import Model, QuerySet
from django.utils.translation import gettext as _
from psycopg.errors import QueryCanceled

from ..exceptions import DefinitionError
from . import lanes, selection, sql, time_limit

# Rows that a filter is asked about at once, or a slice of them where that takes too long; and milliseconds that
# PostgreSQL has for each.
ROWS = 10_000
FOR_MANY, FOR_FEW = 300, 2_000
# Seconds that it may take with all its Python: less than PostgreSQL lets a transaction idle (lanes.py).
LONGEST = 4.0

# For a lock it waits less: whoever has locked the table says nothing of the filter.
BOUND = "SELECT set_config('statement_timeout', %s::text, true), set_config('lock_timeout', '200', true)"


class FilterTooSlow(DefinitionError):
    """PostgreSQL takes too long to filter, or to answer at all just now."""


# Primary keys, the lowest first; and how far the table was looked at, None: to its end.
Found = tuple[list[int], int | None]


def after(model: type[Model], query: str, last_id: int, count: int) -> Found:
    """Return what comes after the primary key, `count` at most. There may be more unless nothing is returned at all.

    Raises DefinitionError, FilterTooSlow among these, or what ends a transaction or a job (interruptions.py).
    """
    for rows, milliseconds in ((ROWS, FOR_MANY), (count, FOR_FEW)):
        found = _in_time(query, milliseconds, partial(_after, model, query, last_id, count, rows))
        if found is not None:
            return found
    raise _too_slow()


def among(model: type[Model], query: str, pks: Collection[int]) -> list[int]:
    """Return those of the primary keys that the query leaves. Raises as `after`."""
    found = _in_time(query, FOR_FEW, lambda: _keys(selection.objects(model, query).filter(pk__in=pks), len(pks)))
    if found is None:
        raise _too_slow()
    return found


def _after(model: type[Model], query: str, last_id: int, count: int, rows: int) -> Found:
    objects = selection.objects(model, query).filter(pk__gt=last_id)
    ends = _keys(selection.objects(model, '').filter(pk__gt=last_id), 1, rows - 1) if query else []
    pks = _keys(objects.filter(pk__lte=ends[0]) if ends else objects, count)
    if ends and len(pks) < count:
        return pks, ends[0]
    return pks, pks[-1] if pks else None


def _keys(objects: QuerySet, count: int, start: int = 0) -> list[int]:
    return list(objects.order_by('pk').values_list('pk', flat=True)[start : start + count])


def _in_time[T](query: str, milliseconds: int, look: Callable[[], T]) -> T | None:
    """Return what `look` returns, None where PostgreSQL takes longer to filter."""
    if query:
        selection.load()  # in a new process it takes longer than a filter may
    before = sql.session()
    try:
        with time_limit.within(LONGEST), lanes.turn():
            sql.fetch(BOUND, [milliseconds])
            return look()
    except DefinitionError:
        raise
    except Exception as error:
        is_canceled = isinstance(error.__cause__, QueryCanceled)
        if is_canceled and query:
            return None
        # Not where PostgreSQL is slow without any filter, somebody has locked the table, or the connection is gone.
        if is_canceled or lanes.is_row_held(error) or sql.is_broken_off(error, before):
            raise
        # Nor where it was PostgreSQL that did not answer: then the connection was given up.
        if isinstance(error, time_limit.TooSlow) and not (query and sql.session() is before):
            raise OperationalError(str(error)) from error
        raise DefinitionError(selection.FILTER, f'{type(error).__name__}: {error}') from error


def _too_slow() -> FilterTooSlow:
    return FilterTooSlow(selection.FILTER, _('PostgreSQL takes too long to find the objects.'))

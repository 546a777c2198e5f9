"""Which objects a backfill sends: those of a model that the model's own list shows for a query in its URL.

Such a query is of anybody's making, and filters are a plugin's code. They run in the main thread of a process that
dispatches, where nothing else goes on meanwhile. So they are asked about a part of the table at a time. What is too
slow all the same, hangs or fails ends its own backfill, by DefinitionError.
"""

from collections.abc import Callable, Collection
from importlib import import_module

from django.conf import settings
from django.db import DEFAULT_DB_ALIAS, OperationalError
from django.db.models import Model, QuerySet
from django.http import QueryDict
from django.utils.translation import gettext as _
from netbox.registry import registry
from psycopg.errors import QueryCanceled

from ...exceptions import DefinitionError
from ...storable import is_storable
from .. import sql, time_limit, transactions

# Name of the field that an error is about: of the REST API, the form and the command.
FILTER = 'filter'
# Rows that a filter is asked about at once, or a slice of them where that takes too long; and milliseconds that
# PostgreSQL has for each.
ROWS = 10_000
FOR_MANY, FOR_FEW = 300, 2_000
# Seconds that it may take with all its Python: less than PostgreSQL lets a transaction idle (transactions.py).
LONGEST = 4.0

# For a lock it waits less: who has locked the table says nothing of the filter.
BOUND = "SELECT set_config('statement_timeout', %s::text, true), set_config('lock_timeout', '200', true)"


class FilterTooSlow(DefinitionError):
    """PostgreSQL takes too long to filter, or to answer at all just now."""


def load() -> None:
    """Let the filter sets be known: the modules of the pages, which URLs name, register them."""
    import_module(settings.ROOT_URLCONF)


def objects(model: type[Model], query: str) -> QuerySet:
    """Return the objects of the model that the query leaves, all if it is blank. Raises DefinitionError."""
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
        raise DefinitionError(FILTER, _('A value holds a null character or half a surrogate pair.'))
    unknown = sorted(parameters.keys() - filterset.filters.keys())
    if unknown:
        text = _('The list of the model {model} has no filter {names}.')
        raise DefinitionError(FILTER, text.format(model=name, names=', '.join(unknown)))
    if not filterset.is_valid():
        problems = '; '.join(f'{name}: {" ".join(errors)}' for name, errors in filterset.errors.items())
        raise DefinitionError(FILTER, problems)
    # A filter over what many objects point to shows an object once for each.
    return filterset.qs.distinct()


def after(model: type[Model], query: str, last_id: int, count: int) -> tuple[list[int], int | None]:
    """Return what comes after the primary key, `count` at most, and how far the table was looked at: None, to its end.

    Raises DefinitionError, FilterTooSlow among these, or what ends a transaction or a job (interruptions.py).
    """
    try:
        return _in_time(query, FOR_MANY, lambda: _after(model, query, last_id, count, ROWS))
    except FilterTooSlow:
        return _in_time(query, FOR_FEW, lambda: _after(model, query, last_id, count, count))


def among(model: type[Model], query: str, pks: Collection[int]) -> list[int]:
    """Return those of the primary keys that the query leaves. Raises as `after`."""
    return _in_time(query, FOR_FEW, lambda: _keys(objects(model, query).filter(pk__in=pks), len(pks)))


def _after(model: type[Model], query: str, last_id: int, count: int, rows: int) -> tuple[list[int], int | None]:
    left = objects(model, query).filter(pk__gt=last_id)
    ends = _keys(objects(model, '').filter(pk__gt=last_id), 1, rows - 1) if query else []
    pks = _keys(left.filter(pk__lte=ends[0]) if ends else left, count)
    if ends and len(pks) < count:
        return pks, ends[0]
    return pks, pks[-1] if pks else None


def _keys(found: QuerySet, count: int, start: int = 0) -> list[int]:
    return list(found.order_by('pk').values_list('pk', flat=True)[start : start + count])


def _in_time[T](query: str, milliseconds: int, look: Callable[[], T]) -> T:
    if query:
        load()  # in a new process it takes longer than a filter may
    before = sql.session()
    try:
        with time_limit.within(LONGEST), transactions.short():
            sql.fetch(BOUND, [milliseconds])
            return look()
    except DefinitionError:
        raise
    except Exception as error:
        is_canceled = isinstance(error.__cause__, QueryCanceled)
        if is_canceled and query:
            raise FilterTooSlow(FILTER, _('PostgreSQL takes too long to find the objects.')) from error
        # Not where PostgreSQL is slow without any filter, somebody has locked the table, or the connection is gone.
        if is_canceled or transactions.is_lock_timeout(error) or sql.is_broken_off(error, before):
            raise
        # Nor where it was PostgreSQL that did not answer: then the connection was given up.
        if isinstance(error, time_limit.TooSlow) and not (query and sql.session() is before):
            raise OperationalError(str(error)) from error
        raise DefinitionError(FILTER, f'{type(error).__name__}: {error}') from error

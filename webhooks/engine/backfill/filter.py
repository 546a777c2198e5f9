"""Finds a backfill's next objects, by the filters of the model's own list.

The dispatcher waits meanwhile. So a filter that is slow, hangs or fails ends its own backfill, by DefinitionError.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module

from django.conf import settings
from django.db import DEFAULT_DB_ALIAS, OperationalError
from django.db.models import Model, QuerySet
from django.http import QueryDict
from django.utils.translation import gettext as _
from netbox.registry import registry
from psycopg.errors import QueryCanceled

from ...exceptions import DefinitionError
from ...interruptions import INTERRUPTIONS
from ...storable import is_storable
from .. import sql, time_limit, transactions

FILTER = 'filter'
# Milliseconds for PostgreSQL to filter. Seconds with the filter's Python: less than a transaction may idle.
MOST, LONGEST = 3_000, 4.0

# A locked table is not the filter's fault.
BOUND = "SELECT set_config('statement_timeout', %s::text, true), set_config('lock_timeout', '200', true)"


def load() -> None:
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
        raise DefinitionError(FILTER, _('A value holds a null character or half a surrogate pair.'))
    unknown = sorted(parameters.keys() - filterset.filters.keys())
    if unknown:
        text = _('The list of the model {model} has no filter {names}.')
        raise DefinitionError(FILTER, text.format(model=name, names=', '.join(unknown)))
    if not filterset.is_valid():
        problems = '; '.join(f'{name}: {" ".join(errors)}' for name, errors in filterset.errors.items())
        raise DefinitionError(FILTER, problems)
    # A filter over many related objects may repeat an object.
    return filterset.qs.distinct()


def after(model: type[Model], query: str, last_id: int, count: int, rows: int) -> tuple[list[int], int | None]:
    """Return the next `count` primary keys at most, and where to go on: None at the table's end.

    With a query it looks at so many `rows`. Raises DefinitionError, or an interruption (interruptions.py).
    """
    with _bounded(query):
        left = objects(model, query).filter(pk__gt=last_id)
        ends = _keys(objects(model, '').filter(pk__gt=last_id), 1, rows - 1) if query else []
        pks = _keys(left.filter(pk__lte=ends[0]) if ends else left, count)
    if ends and len(pks) < count:
        return pks, ends[0]
    return pks, pks[-1] if pks else None


def _keys(found: QuerySet, count: int, start: int = 0) -> list[int]:
    return list(found.order_by('pk').values_list('pk', flat=True)[start : start + count])


@contextmanager
def _bounded(query: str) -> Iterator[None]:
    """A bounded transaction, which tells the filter's errors from others."""
    if query:
        load()  # a new process takes longer than a filter may
    try:
        with time_limit.within(LONGEST), transactions.short():
            sql.fetch(BOUND, [MOST])
            yield
    except DefinitionError:
        raise
    except Exception as error:
        if query and isinstance(error.__cause__, QueryCanceled):
            raise DefinitionError(FILTER, _('PostgreSQL takes too long to find the objects.')) from error
        if isinstance(error, INTERRUPTIONS):
            raise
        if not query and isinstance(error, time_limit.TooSlow):
            raise OperationalError(str(error)) from error
        raise DefinitionError(FILTER, f'{type(error).__name__}: {error}') from error

"""Finds the objects that a filter of NetBox's lists shows.

The filters are NetBox's own, or a plugin's. One may be slow, hang or fail, so each caller limits its time.
"""

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from importlib import import_module

from django.conf import settings
from django.core.validators import EMPTY_VALUES
from django.db import DEFAULT_DB_ALIAS, OperationalError, connection, transaction
from django.db.models import Model, Q, QuerySet
from django.http import QueryDict
from django.utils.translation import gettext as _
from extras.models import SavedFilter
from netbox.registry import registry
from psycopg.errors import LockNotAvailable, QueryCanceled

from . import patience
from .default_database import pinned
from .exceptions import DefinitionError, WebhooksError, reason_of
from .interruptions import INTERRUPTIONS, Locked
from .storable import is_key, is_storable

# Keys in the address of a list that are no filters.
BESIDE = ('sort', 'page', 'per_page', 'tableconfig_id', 'include_columns', 'exclude_columns')
# Keys that name saved filters, by id and by slug.
SAVED = ('filter_id', 'filter')
# The field that a DefinitionError names if the filter is wrong.
FILTER = 'filter'
# A filter may keep a process waiting: milliseconds in PostgreSQL, for a statement and for a locked table, and seconds
# in all.
FILTER_MS = 3_000
FILTER_LOCK_MS = 200
FILTER_SECONDS = 4.0

# Limit a filter's statements, until the open transaction or savepoint is rolled back. If a table is locked, that is not
# the filter's fault: it ends sooner, with another error.
BOUND_FILTER = f"""
    SELECT set_config('statement_timeout', %s::text, true), set_config('lock_timeout', '{FILTER_LOCK_MS}', true)"""


def load() -> None:
    """Import NetBox's pages, which register the filters of its lists. Without it the registry lacks most of them."""
    import_module(settings.ROOT_URLCONF)


def objects(model: type[Model], query: str) -> QuerySet:
    """Return the model's objects that match the query: all if it is blank, each once. It reads no object yet.

    `query` is that of the model's list in NetBox (`status=active&site=bern`). Its keys for order, pages and columns are
    ignored. Raises DefinitionError for the field `filter` if the model has no such filter, or refuses the value.
    """
    everything = model._default_manager.using(DEFAULT_DB_ALIAS).all()
    if not query:
        return everything
    load()
    # Somebody may save a webhook in a branch. The filter looks up the tenants and sites that it names at once, and
    # workers would not find those of the branch in main.
    with pinned():
        return _filtered(everything, query)


def count(model: type[Model], query: str) -> int:
    """Return how many of the model's objects match. Raises as objects(). It compares keys, not whole rows."""
    return objects(model, query).order_by().values('pk').count()


def _filtered(everything: QuerySet, query: str) -> QuerySet:
    name = everything.model._meta.label_lower
    filterset_class = registry['filtersets'].get(name)
    if filterset_class is None:
        raise DefinitionError(FILTER, _('Objects of the model {model} cannot be filtered.').format(model=name))
    parameters = _parameters(query)
    for beside in BESIDE:
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
    # NetBox ignores a value that is neither true nor false. Then the list would have all objects.
    cleaned, given = filterset.form.cleaned_data, (name for name, values in parameters.lists() if any(values))
    if ignored := sorted(name for name in given if cleaned.get(name) in EMPTY_VALUES):
        raise DefinitionError(FILTER, f'{", ".join(ignored)}: {_("Enter true or false.")}')
    # A filter over many related objects may repeat an object.
    return filterset.qs.distinct()


def named(query: str) -> list[str]:
    """Return the names of the filters in a query, and in its saved filters unless a saved one is gone."""
    return [name for name in QueryDict(spelled_out(query)) if name not in (*BESIDE, *SAVED)]


def spelled_out(query: str) -> str:
    """Return the query with its saved filters spelled out as parameters, or unchanged if a saved one is gone."""
    try:
        return _parameters(query).urlencode()
    except DefinitionError:
        return query


def _parameters(query: str) -> QueryDict:
    """Return the parameters of a query and of its saved filters. Raises DefinitionError if a saved one is not shared.

    NetBox ignores a saved filter that is private or was deleted. Then the list would have all objects.
    """
    parameters = QueryDict(query, mutable=True)
    ids, slugs = (parameters.pop(name, []) for name in SAVED)
    keys = [one for one in ids if is_key(one)]
    saved = SavedFilter.objects.filter(Q(pk__in=keys) | Q(slug__in=slugs), shared=True) if ids or slugs else ()
    if gone := {*ids, *slugs} - {str(one.pk) for one in saved} - {one.slug for one in saved}:
        text = _('There is no saved filter {names} that is shared.')
        raise DefinitionError(FILTER, text.format(names=', '.join(sorted(gone))))
    for one in saved:
        for name, value in one.parameters.items():
            parameters.setlistdefault(name).extend(value if isinstance(value, list) else [value])
    return parameters


def after(model: type[Model], query: str, last_id: int, count: int) -> tuple[list[int], int | None]:
    """Return which of the next `count` objects after the key `last_id` match, and the last key that was looked at.

    The key is None at the table's end. Raises DefinitionError if the filter is wrong or too slow, Locked if a table is
    locked.
    """
    with bounded(query):
        matching = objects(model, query)
        following = objects(model, '').filter(pk__gt=last_id).order_by('pk').values_list('pk', flat=True)
        keys = list(following[:count])
        pks = list(matching.filter(pk__in=keys).values_list('pk', flat=True)) if query else keys
    return pks, keys[-1] if keys else None


def among(model: type[Model] | None, query: str, pks: Collection[int]) -> list[int]:
    """Return which of these objects match. Raises as after()."""
    if model is None:
        raise DefinitionError('object_types', _('A model is no longer installed.'))
    with bounded(query):
        return list(objects(model, query).filter(pk__in=pks).values_list('pk', flat=True))


@contextmanager
def blamed() -> Iterator[None]:
    """Turn an error of a filter in the block into a DefinitionError: NetBox's own and plugins' may raise anything."""
    try:
        yield
    except (WebhooksError, *INTERRUPTIONS, patience.TooSlow):
        raise
    except Exception as error:
        raise DefinitionError(FILTER, reason_of(error).partition('\n')[0]) from error


@contextmanager
def bounded(query: str) -> Iterator[None]:
    """Limit the time of the block. It only reads, and ends with a rollback: later statements have their own limits.

    If it runs out, that is the filter's error, as is any other. Without a filter (`query` is blank) it is an
    OperationalError. Raises Locked if a table is locked.
    """
    try:
        with patience.within(FILTER_SECONDS), transaction.atomic():
            with connection.cursor() as cursor:
                cursor.execute(BOUND_FILTER, [FILTER_MS])
            with blamed():
                yield
            transaction.set_rollback(True)
    except OperationalError as error:
        if isinstance(error.__cause__, LockNotAvailable):
            raise Locked(str(error).partition('\n')[0]) from error
        if query and isinstance(error.__cause__, QueryCanceled):
            reason = _('PostgreSQL takes too long to find the objects. Use a simpler filter.')
            raise DefinitionError(FILTER, reason) from error
        raise
    except patience.TooSlow as error:
        raise (DefinitionError(FILTER, str(error)) if query else OperationalError(str(error))) from error

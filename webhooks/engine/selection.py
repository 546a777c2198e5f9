"""Which objects a backfill sends: those of a model that the model's own list shows for a query in its URL."""

from collections.abc import Iterable
from importlib import import_module

from django.conf import settings
from django.contrib.contenttypes.models import ContentType
from django.db import DEFAULT_DB_ALIAS
from django.db.models import Model, QuerySet
from django.http import QueryDict
from django.utils.translation import gettext as _
from netbox.registry import registry

from .. import object_types
from ..exceptions import DefinitionError
from ..storable import is_storable

# Names of the field that an error is about: of the REST API, the form and the command.
MODELS, FILTER = 'object_types', 'filter'
# What the URL of a list says beside its filter.
BESIDE = ('sort', 'page', 'per_page')


def choose(wanted: Iterable[ContentType], among: Iterable[ContentType]) -> list[ContentType]:
    """Return the object types of `wanted`, each of which has to be `among` those of a webhook.

    Raises DefinitionError.
    """
    chosen = list(object_types.allowed().filter(pk__in=[one.pk for one in wanted]))
    if not chosen:
        raise DefinitionError(MODELS, _('There are no object types to send.'))
    missing = set(chosen) - set(among)
    if missing:
        names = ', '.join(sorted(map(object_types.name_of, missing)))
        raise DefinitionError(MODELS, _('The webhook is not subscribed to: {names}').format(names=names))
    return chosen


def load() -> None:
    """Let the filter sets be known: the modules of the pages, which URLs name, register them."""
    import_module(settings.ROOT_URLCONF)


def objects(model: type[Model], query: str) -> QuerySet:
    """Return the objects of the model that the query leaves, all if it is blank. Raises DefinitionError."""
    everything = model._default_manager.using(DEFAULT_DB_ALIAS).all()
    if not query:
        return everything
    load()
    filterset_class = registry['filtersets'].get(model._meta.label_lower)
    if filterset_class is None:
        raise DefinitionError(FILTER, _('Objects of the model {model} cannot be filtered.').format(model=_name(model)))
    parameters = QueryDict(query, mutable=True)
    for name in BESIDE:
        parameters.pop(name, None)
    filterset = filterset_class(parameters, queryset=everything)
    if not is_storable([list(pair) for pair in parameters.lists()]):
        raise DefinitionError(FILTER, _('A value holds a null character or half a surrogate pair.'))
    unknown = sorted(parameters.keys() - filterset.filters.keys())
    if unknown:
        text = _('The list of the model {model} has no filter {names}.')
        raise DefinitionError(FILTER, text.format(model=_name(model), names=', '.join(unknown)))
    if not filterset.is_valid():
        problems = '; '.join(f'{name}: {" ".join(errors)}' for name, errors in filterset.errors.items())
        raise DefinitionError(FILTER, problems)
    # A filter over what many objects point to shows an object once for each.
    return filterset.qs.distinct()


def _name(model: type[Model]) -> str:
    return model._meta.label_lower

"""Compares lists that webhooks subscribe to with the objects that their receivers have: at once, or without sending."""

import time
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from django.db import transaction
from django.utils.text import Truncator
from django.utils.translation import gettext as _

from .. import object_types
from ..engine.walks.lists import difference
from ..exceptions import STATE, Busy, DefinitionError
from ..models import ListWalk, Webhook
from ..outbox import wakeup
from ..visibility import Reader, may_view_all
from . import switching

# Objects that are looked at together.
OBJECTS_PER_LOOK = 1000
# A dry run names at most this many objects of each sort, each in at most this many characters.
MAX_OBJECTS_NAMED = 20
MAX_NAME_CHARS = 100
# A dry run is given up after this time: a user waits for the answer.
DRY_RUN_SECONDS = 30.0


class Compared(NamedTuple):
    """The differences that a walk would send about a list: numbers, and names of the first objects."""

    object_type: str
    query: str
    listed: int
    missing: int
    stale: int
    extra: int
    names_of_missing: list[str]
    names_of_stale: list[str]
    names_of_extra: list[str]


def compare(webhook: Webhook) -> None:
    """Let a worker compare the webhook's lists now, and send the differences.

    A walk that is under way goes on, and another one follows. Raises DefinitionError if it has no lists or is disabled,
    or the plugin is off.
    """
    _check(webhook)
    ListWalk.objects.filter(webhook_id=webhook.pk).update(asked=True)
    transaction.on_commit(wakeup.wake, robust=True)


def differences(webhook: Webhook, reader: Reader | None = None) -> list[Compared]:
    """Return the differences that comparing would send now, for each list. Sends and writes nothing.

    Changes that are on their way count as sent. Raises DefinitionError as compare(), for a filter that fails, and for a
    reader who may not view all objects; Busy after DRY_RUN_SECONDS.
    """
    _check(webhook)
    until = time.monotonic() + DRY_RUN_SECONDS
    lists = ListWalk.objects.filter(webhook_id=webhook.pk).select_related('object_type').order_by('object_type_id')
    models = object_types.models_of(one.object_type for one in lists)
    if reader is not None and not all(may_view_all(reader, model) for model in models):
        raise DefinitionError('dry_run', _('You need the permission to view all objects of these types.'))
    return [_compared(one, until) for one in lists if one.object_type.model_class()]


def _check(webhook: Webhook) -> None:
    if not ListWalk.objects.filter(webhook_id=webhook.pk).exists():
        raise DefinitionError(STATE, _('The webhook subscribes to no list: it has no filters.'))
    switching.check_on(webhook)


def _compared(listed: ListWalk, until: float) -> Compared:
    model = listed.object_type.model_class()
    missing, stale, extra, count = [], [], [], 0
    for found, inside in _slices(listed, until):
        count += inside
        missing += found.missing
        stale += found.stale
        extra += [*found.extra, *found.gone]
    parts = (missing, stale, extra)
    named = {one.pk: one for one in model._base_manager.filter(pk__in=[pk for part in parts for pk in _first(part)])}

    def names(pks: Sequence[int]) -> list[str]:
        return [Truncator(str(named.get(pk, f'#{pk}'))).chars(MAX_NAME_CHARS) for pk in _first(pks)]

    label = object_types.label_of(listed.object_type)
    return Compared(label, listed.query, count, *map(len, parts), *map(names, parts))


def _slices(listed: ListWalk, until: float) -> Iterator[tuple]:
    last_id: int | None = 0
    while last_id is not None:
        if time.monotonic() > until:
            raise Busy(_('This takes too long. Compare the list without a dry run: workers do it in the background.'))
        found, inside, last_id = difference(listed, listed.object_type.model_class(), last_id, OBJECTS_PER_LOOK)
        yield found, inside


def _first(pks: Sequence[int]) -> list[int]:
    return list(pks[:MAX_OBJECTS_NAMED])

"""Starts, pauses, resumes and cancels backfills: all objects of a webhook, in their present state.

Each function that writes locks the backfill's row first, as the dispatcher that records the objects does.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.contrib.contenttypes.models import ContentType
from django.db import transaction
from django.utils.translation import gettext as _

from .. import list_filters, object_types
from ..choices import BackfillStateChoices
from ..engine import commands, sql
from ..exceptions import STATE, DefinitionError
from ..list_filters import FILTER
from ..models import Backfill, Event, Webhook
from ..outbox import wakeup
from . import switching
from .keys import check_may_view


@dataclass(frozen=True)
class Choice:
    """The objects that a backfill would send.

    `counts` is {object type: number}, `query` the URL query that chose them.
    """

    counts: dict[ContentType, int]
    query: str

    @property
    def total(self) -> int:
        """Return the number of objects of all types."""
        return sum(self.counts.values())


def choose(webhook: Webhook, types: Collection[ContentType] | None = None, query: str = '', user: Any = None) -> Choice:
    """Return the objects to send: of all the webhook's types, or only of `types`. Counts them, and writes nothing.

    `query` is the URL query of a model's list. A filter's counts reveal data, so the `user` then needs unconstrained
    view permission. Raises DefinitionError for a wrong type or filter.
    """
    query = query.strip().removeprefix('?')
    chosen = chosen_types(webhook, types)
    if query and user:
        check_may_view(FILTER, user, object_types.models_of(chosen))
    counts = {object_type: _count(object_type, query) for object_type in chosen}
    return Choice(counts, query)


def chosen_types(webhook: Webhook, types: Collection[ContentType] | None) -> list[ContentType]:
    """Return the types to send: all of the webhook, or only `types`. Raises DefinitionError if it lacks one."""
    own = webhook.object_types.all()
    chosen = list(object_types.allowed().filter(pk__in=[one.pk for one in (own if types is None else types)]))
    if not chosen:
        raise DefinitionError('object_types', _('The webhook has no object types. Choose some on the webhook first.'))
    missing = set(chosen) - set(own)
    if missing:
        names = ', '.join(sorted(map(object_types.name_of, missing)))
        raise DefinitionError(
            'object_types', _('These are not among the object types of the webhook: {names}').format(names=names)
        )
    return chosen


def _count(object_type: ContentType, query: str) -> int:
    with list_filters.blamed(), transaction.atomic():
        return list_filters.count(object_type.model_class(), query)


@transaction.atomic
def start(webhook: Webhook, choice: Choice, user: Any = None) -> Backfill:
    """Make the webhook's backfill, which replaces its last one. A dispatcher begins after the commit.

    If the last one was canceled, its untried deliveries are removed first. Raises DefinitionError if the plugin is off,
    if the webhook is disabled, or if another backfill is open.
    """
    # Somebody may have disabled or deleted it since.
    switching.check_on(Webhook.objects.filter(pk=webhook.pk).first() or Webhook(enabled=False))
    backfill = Backfill(
        webhook=webhook,
        state=BackfillStateChoices.RUNNING,
        object_types=[object_type.pk for object_type in choice.counts],
        query=choice.query,
        total=choice.total,
        username=user.username if user else '',
        started_at=sql.now(),
    )
    # If the webhook has no backfill yet, there is no row to lock. Then only one of two starts inserts it.
    Backfill.objects.bulk_create([backfill], ignore_conflicts=True)
    last, now = _lock_backfill(webhook)
    if last.started_at != backfill.started_at:
        if last.is_open:
            raise DefinitionError(
                STATE, _('A backfill of this webhook is already running or paused. Cancel it, or wait until it ends.')
            )
        if last.state == BackfillStateChoices.CANCELED:
            _take_back(last, now)
        backfill.started_at = now
        backfill.save(force_update=True)
    transaction.on_commit(wakeup.wake, robust=True)
    return backfill


def pause(webhook: Webhook) -> Backfill:
    """Record no more objects, and hold untried deliveries. Raises DefinitionError if no backfill is running."""
    return _move(webhook, [BackfillStateChoices.RUNNING], BackfillStateChoices.PAUSED)


def resume(webhook: Webhook) -> Backfill:
    """Go on recording, and let the held deliveries go out. Raises DefinitionError if no backfill is paused."""
    return _move(webhook, [BackfillStateChoices.PAUSED], BackfillStateChoices.RUNNING)


def cancel(webhook: Webhook) -> Backfill:
    """End the backfill, and remove its untried deliveries. Raises DefinitionError if no backfill is open."""
    return _move(webhook, BackfillStateChoices.OPEN, BackfillStateChoices.CANCELED)


@transaction.atomic
def _move(webhook: Webhook, states: Sequence[str], state: str) -> Backfill:
    backfill, now = _lock_backfill(webhook)
    if backfill is None or backfill.state not in states:
        raise DefinitionError(STATE, _refusal(state))
    backfill.state = state
    if not backfill.is_open:
        backfill.finished_at = now
        backfill.recorded = max(backfill.recorded - _take_back(backfill, now), 0)
    backfill.save(update_fields=['state', 'finished_at', 'recorded'])
    if state == BackfillStateChoices.RUNNING:
        commands.release(webhook.pk, now)
    transaction.on_commit(wakeup.wake, robust=True)
    return backfill


def _refusal(state: str) -> str:
    return {
        BackfillStateChoices.PAUSED: _('No backfill is running, so there is nothing to pause.'),
        BackfillStateChoices.RUNNING: _('No backfill is paused, so there is nothing to resume.'),
        BackfillStateChoices.CANCELED: _('No backfill is running or paused, so there is nothing to cancel.'),
    }[state]


def _lock_backfill(webhook: Webhook) -> tuple[Backfill | None, datetime]:
    return Backfill.objects.select_for_update(of=('self',)).filter(pk=webhook.pk).first(), sql.now()


def _take_back(backfill: Backfill, now: datetime) -> int:
    """Remove untried objects, including those of earlier backfills. Return the number of this backfill's own."""
    undispatched = Event.objects.filter(dispatched_at=None, backfill_for=backfill.pk, urgent=False)
    count = undispatched.filter(timestamp__gte=backfill.started_at).count()
    removed = commands.take_back(backfill.pk, now)
    return count + sum(made_at >= backfill.started_at for made_at in removed)

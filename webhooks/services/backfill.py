"""What people ask of backfills: to start one, to hold it, to go on with it and to end it; and how far one has come.

Each takes the webhook's lane first (engine/lanes.py), so that it is no more than one at a time, and raises
Busy where the lane is not free in time.
"""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.contrib.contenttypes.models import ContentType
from django.db import DataError, transaction
from django.db.models import QuerySet
from django.utils.translation import gettext as _

from .. import object_types, visibility
from ..choices import BackfillStateChoices
from ..engine import lanes, selection, sql
from ..engine.backfill import look_behind_untried, remove_untried
from ..exceptions import DefinitionError
from ..models import Backfill, Event, Webhook
from ..outbox import wakeup

# The `field` of a refusal because of the state of the backfill: the REST API answers it with 409.
STATE = 'state'

# What no dispatcher has in hand. Of what one has, it makes no deliveries, or none that is sent (engine/backfill.py).
DISCARD = """
    DELETE FROM webhooks_event WHERE id = ANY(ARRAY(
        SELECT id FROM webhooks_event
        WHERE dispatched_at IS NULL AND backfill_for = %(webhook)s AND (lease IS NULL OR lease_until < now())
        FOR UPDATE SKIP LOCKED
    ))"""


@dataclass(frozen=True)
class Choice:
    """Which objects are sent: {object type: how many there are}, and the query that leaves them."""

    counts: dict[ContentType, int]
    query: str

    @property
    def total(self) -> int:
        return sum(self.counts.values())


def choose(webhook: Webhook, types: Collection[ContentType] | None = None, query: str = '', user: Any = None) -> Choice:
    """Return what a backfill would send: what the query leaves of the webhook's object types, or of the `types`.

    The query is that of the URL of the model's list. With a query the numbers tell of what the objects are: the `user`,
    if one is given, has to be allowed to view all objects of the models. Raises DefinitionError.
    """
    own = webhook.object_types.all()
    query = query.strip().removeprefix('?')
    chosen = selection.choose(own if types is None else types, own)
    if query and user:
        _check_view(chosen, user)
    counts = {object_type: _count(object_type, query) for object_type in chosen}
    return Choice(counts, query)


def _count(object_type: ContentType, query: str) -> int:
    try:
        with transaction.atomic():
            return selection.objects(object_type.model_class(), query).count()
    except (DataError, ValueError) as error:  # a number beyond PostgreSQL's, a regular expression that is none
        raise DefinitionError(selection.FILTER, str(error).partition('\n')[0]) from None


def _check_view(chosen: Iterable[ContentType], user: Any) -> None:
    hidden = [one for one in chosen if not visibility.may_view_all(user, one.model_class())]
    if hidden:
        names = ', '.join(sorted(map(object_types.name_of, hidden)))
        text = _('To filter them you need the permission to view all of them: {names}')
        raise DefinitionError(selection.FILTER, text.format(names=names))


def start(webhook: Webhook, choice: Choice, user: Any = None) -> Backfill:
    """Start to send what was chosen. Raises DefinitionError where the webhook is disabled, or is being backfilled."""
    with lanes.hold(webhook.pk) as now:
        if not Webhook.objects.filter(pk=webhook.pk, enabled=True).exists():
            raise DefinitionError('enabled', _('The webhook is disabled: enable it first.'))
        last = _locked(webhook).first()
        if last and last.is_open:
            raise DefinitionError(STATE, _('A backfill of this webhook is under way: cancel it first.'))
        if last and last.state == BackfillStateChoices.CANCELED:
            _take_back(last, now)  # what was in hand when it was
        backfill = Backfill(
            webhook=webhook,
            state=BackfillStateChoices.RUNNING,
            object_types=[object_type.pk for object_type in choice.counts],
            query=choice.query,
            total=choice.total,
            username=user.username if user else '',
            started_at=now,
        )
        backfill.save()
        transaction.on_commit(wakeup.wake, robust=True)
    return backfill


def pause(webhook: Webhook) -> Backfill:
    """Hold what is not sent yet. Raises DefinitionError where no backfill is running."""
    return _move(webhook, [BackfillStateChoices.RUNNING], BackfillStateChoices.PAUSED)


def resume(webhook: Webhook) -> Backfill:
    """Go on. Raises DefinitionError where no backfill is paused."""
    return _move(webhook, [BackfillStateChoices.PAUSED], BackfillStateChoices.RUNNING)


def cancel(webhook: Webhook) -> Backfill:
    """End it: what was not tried yet is not sent. Raises DefinitionError where there is none to end."""
    return _move(webhook, BackfillStateChoices.OPEN, BackfillStateChoices.CANCELED)


def _move(webhook: Webhook, states: Sequence[str], state: str) -> Backfill:
    with lanes.hold(webhook.pk) as now:
        backfill = _locked(webhook).filter(state__in=states).first()
        if backfill is None:
            raise DefinitionError(STATE, _refusal(state))
        backfill.state = state
        if not backfill.is_open:
            backfill.finished_at = now
            backfill.recorded = max(backfill.recorded - _take_back(backfill, now), 0)
        backfill.save(update_fields=['state', 'finished_at', 'recorded'])
        if state == BackfillStateChoices.PAUSED:
            look_behind_untried(backfill.pk, now)
        transaction.on_commit(wakeup.wake, robust=True)
    return backfill


def _refusal(state: str) -> str:
    return {
        BackfillStateChoices.PAUSED: _('There is no backfill to pause.'),
        BackfillStateChoices.RUNNING: _('There is no backfill to resume.'),
        BackfillStateChoices.CANCELED: _('There is no backfill to cancel.'),
    }[state]


def _locked(webhook: Webhook) -> QuerySet[Backfill]:
    """Return its backfill, locked: a slice is being recorded for some milliseconds at most."""
    return Backfill.objects.select_for_update(of=('self',)).filter(pk=webhook.pk)


def _take_back(backfill: Backfill, now: datetime) -> int:
    """Remove what was not tried. Return of how many objects it was, with those that dispatch will pass over.

    What is left of an earlier backfill of the webhook goes as well, and does not count.
    """
    undispatched = Event.objects.filter(dispatched_at=None, backfill_for=backfill.pk)
    count = undispatched.filter(timestamp__gte=backfill.started_at).count()
    sql.execute(DISCARD, {'webhook': backfill.pk})
    removed = remove_untried(backfill.pk, now)
    return count + sum(objects for objects, created in removed if created >= backfill.started_at)

"""Sends closed deliveries again, and counts them before."""

from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from operator import itemgetter
from typing import NamedTuple

from django.contrib.humanize.templatetags.humanize import intcomma
from django.db import transaction
from django.db.models import Exists, OuterRef, Q, QuerySet
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext

from ..choices import OPEN_STATUSES, StatusChoices
from ..engine import commands, sql
from ..exceptions import STATE, DefinitionError, DeliveryFailed
from ..models import Delivery, Webhook, querysets
from ..outbox import wakeup
from ..presentation.moments import moment
from . import failed_jobs, switching

# Deliveries with these statuses were not confirmed by a receiver. So they go again under the same id.
AS_ITSELF = (StatusChoices.FAILED, StatusChoices.SUPERSEDED)
STILL_OPEN = gettext_lazy(
    'This delivery or its redelivery is still pending. Only finished deliveries can be redelivered.'
)
NOTHING_CLOSED = gettext_lazy('Nothing to redeliver: only finished deliveries can be redelivered.')
# A transaction redelivers at most this many, and the rest of their change sets.
DELIVERIES_PER_PART = 500

# Lock the deliveries' events until the commit, so that they are not pruned. Skip events that pruning has locked: they
# are about to be deleted.
LOCK_EVENTS = """
    SELECT e.id FROM webhooks_event e WHERE e.id IN (SELECT event_id FROM webhooks_delivery WHERE id = ANY(%(ids)s))
    FOR KEY SHARE SKIP LOCKED"""

# Copy the span of delivered ones to the new deliveries that repeat them. `seen`: the receiver knows the object, so its
# deletion must be sent.
COPY_SPANS = """
    UPDATE webhooks_delivery n SET span = coalesce(d.span, '{}') || '{"seen": true}'
    FROM unnest(%(old_ids)s::bigint[], %(new_ids)s::bigint[]) AS v(old, new)
    JOIN webhooks_delivery d ON d.id = v.old JOIN webhooks_event e ON e.id = d.event_id
    WHERE n.id = v.new AND (d.span IS NOT NULL OR e.kind = 'created')"""


# Read the oldest change among these deliveries, and how many are outdated: a later change of their object has arrived.
READ_FIGURES = """
    SELECT min(e.timestamp), count(*) FILTER (WHERE EXISTS (
        SELECT 1 FROM webhooks_delivery l JOIN webhooks_event le ON le.id = l.event_id
        WHERE (l.object_type_id, l.object_id, l.webhook_id) = (d.object_type_id, d.object_id, d.webhook_id)
            AND l.status = 'delivered' AND l.sequence > d.sequence AND NOT le.test
    ))
    FROM webhooks_delivery d JOIN webhooks_event e ON e.id = d.event_id WHERE d.id = ANY(%(ids)s)"""


class Found(NamedTuple):
    """A closed delivery that was found, with the columns that decide its transaction and its id when it goes again."""

    sequence: int
    pk: int
    status: str
    webhook_id: int
    event_id: int
    change_set: int | None
    lead: int | None

    @property
    def together(self) -> Hashable:
        """Return the key of its change set, which goes again in one transaction."""
        return (self.webhook_id, self.change_set) if self.change_set else self.pk


@dataclass(frozen=True)
class Figures:
    """The figures of a redelivery before it happens: numbers of deliveries, by webhook, and their age.

    `outdated` deliveries are older than a later delivered change of their object. `delivered` ones get a new id.
    `counted_at` goes to `redeliver`, which then leaves out deliveries that are closed later.
    """

    count: int
    by_webhook: Mapping[int, int]
    oldest: datetime | None
    outdated: int
    delivered: int
    counted_at: datetime

    @property
    def sentences(self) -> list[str]:
        """Return the figures for people: the number first, then surprising facts."""
        if not self.count:
            return [str(NOTHING_CLOSED)]
        sentences = [f'{self._what_is_sent} {self._age}']
        if self.delivered:
            text = ngettext(
                '%(shown)s was delivered before. It gets a new webhook-id, as the receiver might ignore the old one.',
                '%(shown)s were delivered before. They get a new webhook-id, as the receiver might ignore the old one.',
                self.delivered,
            )
            sentences.append(text % {'shown': intcomma(self.delivered)})
        return sentences

    @property
    def _what_is_sent(self) -> str:
        deliveries = ngettext('%(shown)s delivery', '%(shown)s deliveries', self.count)
        webhooks = ngettext('%(shown)s webhook', '%(shown)s webhooks', len(self.by_webhook))
        return _('{deliveries} to {webhooks} will be sent again.').format(
            deliveries=deliveries % {'shown': intcomma(self.count)},
            webhooks=webhooks % {'shown': intcomma(len(self.by_webhook))},
        )

    @property
    def _age(self) -> str:
        oldest = moment(self.oldest)
        if not self.outdated:
            text = _('The oldest is from {time}; none is older than a later delivered change of its object.')
            return text.format(time=oldest)
        text = ngettext(
            'The oldest is from {time}; {count} of them is older than a later delivered change of its object.',
            'The oldest is from {time}; {count} of them are older than a later delivered change of their object.',
            self.outdated,
        )
        return text.format(time=oldest, count=intcomma(self.outdated))


def measure(deliveries: QuerySet[Delivery]) -> Figures:
    """Count the deliveries that `redeliver` would send again. Sends and changes nothing."""
    now = sql.now()
    found = _find(deliveries)
    oldest, outdated = sql.fetch(READ_FIGURES, {'ids': [one.pk for one in found]})[0]
    delivered = sum(one.status == StatusChoices.DELIVERED for one in found)
    return Figures(len(found), Counter(one.webhook_id for one in found), oldest, outdated, delivered, now)


def redeliver(
    deliveries: QuerySet[Delivery],
    watch: Callable[[Sequence[Sequence[int]]], Iterable[Sequence[int]]] = iter,
    counted_at: datetime | None = None,
) -> int:
    """Redeliver closed deliveries in parts, by sequence, and return their number. A worker sends them.

    A failed or superseded delivery keeps its `webhook-id` and gets one more attempt, with its part of a change set. A
    delivered one gets a new id: receivers may ignore known ids. `watch` wraps the parts, for a progress bar.
    `counted_at` is from Figures: while a person reads these, more may fail.
    """
    # Find all before the first part: it makes new deliveries, which a later part must not redeliver.
    found = sorted(_find(deliveries, counted_at), key=itemgetter(0, 1))
    delivered = {one.pk for one in found if one.status == StatusChoices.DELIVERED}
    parts = list(_parts({one.pk: one.together for one in found}))
    return sum(_redeliver(part, delivered.intersection(part), counted_at) for part in watch(parts))


def redeliver_one(delivery: Delivery) -> int:
    """Redeliver a closed delivery, a failed one with its part of a change set, and return the number.

    Raises DefinitionError if it is open.
    """
    count = redeliver(Delivery.objects.filter(pk=delivery.pk))
    if not count:
        raise DefinitionError(STATE, str(STILL_OPEN))
    return count


def _find(deliveries: QuerySet[Delivery], closed_until: datetime | None = None) -> Collection[Found]:
    """Return the closed deliveries. A failed or superseded one brings the rest of its request along.

    Each redelivery of a delivered one adds a row for the same event. Only the newest of them is returned, else a period
    that is redelivered twice would send each event twice, then four times.
    """
    closed = _without_repeated(deliveries.exclude(status__in=OPEN_STATUSES), closed_until)
    if closed_until is not None:
        closed = closed.filter(Q(finished_at__lte=closed_until) | Q(finished_at=None))
    found = {Found(*row) for row in closed.values_list(*Found._fields)}
    leads = {one.lead for one in found if one.lead and one.status in AS_ITSELF}
    if leads:
        shared = Delivery.objects.filter(lead__in=leads, status__in=AS_ITSELF)
        found.update(Found(*row) for row in shared.values_list(*Found._fields))
    return {(one.webhook_id, one.event_id): one for one in sorted(found, key=itemgetter(1))}.values()


def _without_repeated(deliveries: QuerySet[Delivery], since: datetime | None) -> QuerySet[Delivery]:
    """Leave out delivered ones whose redelivery is under way, or was asked for after `since`.

    Two people may confirm the same figures, or one twice.
    """
    recent = Q(status__in=OPEN_STATUSES) if since is None else Q(status__in=OPEN_STATUSES) | Q(created__gt=since)
    repeats = Delivery.objects.filter(webhook=OuterRef('webhook'), event=OuterRef('event'), pk__gt=OuterRef('pk'))
    return deliveries.exclude(Q(status=StatusChoices.DELIVERED) & Exists(repeats.filter(recent)))


def _parts(keys: Mapping[int, Hashable]) -> Iterator[list[int]]:
    """Yield the ids, DELIVERIES_PER_PART or more at a time. Equal keys stay together."""
    last = {key: pk for pk, key in keys.items()}
    part: list[int] = []
    unfinished: set[Hashable] = set()
    for pk, key in keys.items():
        part.append(pk)
        unfinished.add(key)
        if last[key] == pk:
            unfinished.remove(key)
        if len(part) >= DELIVERIES_PER_PART and not unfinished:
            yield part
            part = []
    if part:
        yield part


def _redeliver(part: Sequence[int], delivered: Collection[int], counted_at: datetime | None) -> int:
    deliveries = Delivery.objects.filter(pk__in=part)
    _render_again(deliveries.filter(status__in=AS_ITSELF))
    with transaction.atomic():
        there = _lock_events(deliveries)
        unsent = list(there.filter(status__in=AS_ITSELF).values_list('pk', 'uuid', 'listed'))
        listed = [str(found) for _pk, found, is_listed in unsent if is_listed]
        reopened = commands.reopen(Delivery.objects.filter(pk__in=[pk for pk, *_ in unsent], status__in=AS_ITSELF))
        # A large redelivery takes minutes. Meanwhile somebody else may have redelivered the same. If two do it at once,
        # the second waits for these locks, and sees what the first has made.
        closed = there.filter(status=StatusChoices.DELIVERED, pk__in=delivered).order_by('pk')
        locked = list(closed.select_for_update(no_key=True, of=('self',)).values_list('pk', flat=True))
        made = _send_anew(_without_repeated(Delivery.objects.filter(pk__in=locked), counted_at))
        if listed:
            transaction.on_commit(lambda: failed_jobs.unlist(listed), robust=True)
        transaction.on_commit(wakeup.wake, robust=True)
        return reopened + made


def _send_anew(delivered: QuerySet[Delivery]) -> int:
    found = list(delivered.order_by('sequence', 'pk').values_list('pk', 'webhook_id', 'event_id'))
    old_ids = {(webhook_id, event_id): pk for pk, webhook_id, event_id in found}
    made = commands.make([(webhook_id, event_id) for _pk, webhook_id, event_id in found])
    new_ids = [pk for pk, *_ in made]
    repeated = [old_ids[webhook_id, event_id] for _pk, webhook_id, event_id in made]
    sql.execute(COPY_SPANS, {'old_ids': repeated, 'new_ids': new_ids})
    return len(made)


def _lock_events(deliveries: QuerySet[Delivery]) -> QuerySet[Delivery]:
    """Lock the events against pruning. Return the deliveries whose event is locked."""
    pks = list(deliveries.values_list('pk', flat=True))
    return deliveries.filter(event__in=sql.fetch_column(LOCK_EVENTS, {'ids': pks}))


def _render_again(unsent: QuerySet[Delivery]) -> None:
    """Render events anew that could not be rendered: NetBox or a plugin may be newer now.

    Without data, neither conditions nor lists were asked. Their deliveries are marked, so that dispatch decides them.
    """
    pks = set(unsent.exclude(event__error='').values_list('event_id', flat=True))
    events = list(querysets.events().filter(pk__in=pks)) if pks else []
    webhooks = Webhook.objects.filter(deliveries__event__in=events).distinct().in_bulk()
    wanted = Delivery.objects.filter(event__in=events).values_list('event_id', 'webhook_id')
    # Rendering drops the raw snapshots. So render for all webhooks of these events now.
    matches = defaultdict(list)
    for event_id, webhook_id in wanted:
        matches[event_id].append(webhooks[webhook_id])
    for event in events:
        event.lapses = 0
    commands.render_again(events, matches)
    asking = [pk for pk, webhook in webhooks.items() if webhook.conditions or webhook.filters]
    rendered = Delivery.objects.filter(event__in=events, event__error='', webhook__in=asking, status__in=AS_ITSELF)
    rendered.update(span={'undecided': True})


def select(
    webhook: Webhook | None = None,
    since: datetime | None = None,
    until: datetime | None = None,
    status: str | None = None,
    object_type: int | None = None,
) -> QuerySet[Delivery]:
    """Return closed deliveries whose events are at or after `since` and before `until`, both with a time zone.

    `object_type` is a content type's id. Superseded deliveries are left out unless `status` names them. Tests never
    are among them: a receiver needs none of the past.
    """
    closed = Delivery.objects.closed().filter(event__test=False)
    if status is None:
        closed = closed.exclude(status=StatusChoices.SUPERSEDED)
    filters = {
        'webhook': webhook,
        'event__timestamp__gte': since,
        'event__timestamp__lt': until,
        'status': status,
        'object_type': object_type,
    }
    return closed.filter(**{name: value for name, value in filters.items() if value is not None})


def announce(count: int) -> str:
    """Return the message to the user after a redelivery. It says so if the plugin is off: then they wait."""
    text = ngettext('%d delivery is being redelivered.', '%d deliveries are being redelivered.', count)
    return switching.with_warning(text % count)


#
# The status page
#


def redeliver_failed(delivery_uuid: str) -> None:
    """Redeliver a failed delivery inside its own RQ job. Raises DeliveryFailed if it is gone from the log."""
    found = Delivery.objects.filter(uuid=delivery_uuid)
    if not found.exists():
        raise DeliveryFailed('the delivery was deleted from the log')
    redeliver(found.filter(status=StatusChoices.FAILED))


def outcome(delivery_uuid: str) -> str:
    """Return the delivery's state after its RQ job, in words. Raises DeliveryFailed if it has failed."""
    delivery = Delivery.objects.filter(uuid=delivery_uuid).first()
    if delivery is None:
        return 'nothing to send'  # it expired undecided, and its conditions are not met
    if delivery.status == StatusChoices.FAILED:
        raise DeliveryFailed(delivery.error)
    if delivery.status == StatusChoices.DELIVERED:
        return '1 delivered'
    if delivery.status == StatusChoices.SUPERSEDED:
        return '1 replaced'
    return '1 to retry' if delivery.error else '1 waiting'

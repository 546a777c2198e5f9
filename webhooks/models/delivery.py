"""Delivery: one event for one webhook, with its queryset.

While a worker has a delivery in hand, its state stays; the worker's row lists it. The webhook is no foreign
key in PostgreSQL, so dispatch never waits for edits. `engine/tidy` removes the deliveries of a deleted webhook.
"""

import string
import uuid
from collections.abc import Sequence
from typing import Any

from django.contrib.contenttypes.models import ContentType
from django.db import models
from django.db.models import Case, F, Func, Q, Value, When
from django.db.models.functions import Left
from django.urls import reverse
from django.utils.translation import gettext_lazy as _

from .. import visibility
from ..choices import KindChoices, StatusChoices
from ..delivery_states import OPEN_STATES, PENDING_STATES, QUEUED_STATES, RARE_STATES, WAITING_STATES, DeliveryState
from .confidential import LogQuerySet, shorten_error
from .event import Event
from .of_webhook import LogManager
from .status_field import StatusField
from .webhook import Webhook

FAILED = Q(state=DeliveryState.FAILED)

# In place of the number of a part, until the parts of a change set are made. As the highest smallint, it comes last.
UNFORMED = 32767

# Errors that begin with the same characters count as one cause. It is short, so that a link to the list can name it.
CAUSE_CHARS = 200
# Forms and serializers take off white space at the end, so a cause has none.
WHITE_SPACE = string.whitespace
# As confidential.BEGINNING. PostgreSQL's alternatives take the longest match, so each is a case of its own.
BEGINNING_OF_ERROR = Case(
    When(error__regex=r'^HTTP \d+', then=Func(F('error'), Value(r'^HTTP \d+'), function='SUBSTRING')),
    default=Func(F('error'), Value(':'), Value(1), function='SPLIT_PART'),
    output_field=models.TextField(),
)


class DeliveryQuerySet(LogQuerySet):
    """Deliveries, as one reader may see them.

    Their errors are shortened if the reader may not view all that a request showed.
    """

    def closed(self) -> 'DeliveryQuerySet':
        """Leave only deliveries that nothing is sent for any more: delivered, failed or superseded ones."""
        return self.exclude(state__in=OPEN_STATES)

    def failures(self) -> 'DeliveryQuerySet':
        """Leave only failed deliveries, without tests: a user who sends one sees its result at once."""
        return self.filter(FAILED, event__test=False)

    def with_cause(self, reader: visibility.Reader | None = None) -> 'DeliveryQuerySet':
        """Annotate `cause`, as `cause_of` the error. A reader gets no more than the rows show.

        The alias `beginning` is the same with white space at the end: CAUSE_CHARS long if the error was cut.
        """
        shown: Any = F('error')
        if reader is not None and not visibility.sees_everything(reader):
            shown = Case(When(where_error_is_found(reader), then=F('error')), default=BEGINNING_OF_ERROR)
        return self.alias(beginning=Left(shown, CAUSE_CHARS)).annotate(
            cause=Func('beginning', Value(WHITE_SPACE), function='RTRIM', output_field=models.TextField())
        )

    def _where_shown(self, reader: visibility.Reader, name: str) -> Q:
        return where_error_is_found(reader) if name == 'error' else super()._where_shown(reader, name)

    def _conceal(self, rows: Sequence[Any]) -> None:
        """Shorten errors too that may quote another object of the same request."""
        super()._conceal(rows)
        more = {row.pk: row for row in rows if vars(row).get('error') and (row.change_set or row.expanded)}
        if not more:
            return
        together: dict[int, set[int]] = {pk: {pk} for pk in more}
        for members in Delivery.attempts.rel.related_model.objects.members_of(more):
            for pk in together.keys() & members:
                together[pk].update(members)
        shown = Delivery.objects.filter(_visible(self._reader), pk__in=set().union(*together.values()))
        pks = set(shown.values_list('pk', flat=True))
        for pk, row in more.items():
            if not together[pk] <= pks:
                shorten_error(row)


def cause_of(error: str) -> str:
    """Return the beginning of the error, CAUSE_CHARS long, without white space at its end."""
    return error[:CAUSE_CHARS].rstrip(WHITE_SPACE)


def where_error_is_found(user: visibility.Reader) -> Q:
    """Return the condition for deliveries whose whole error this user may search.

    To be cheap, it finds fewer than the rows show. Change sets are left out.
    """
    if visibility.sees_everything(user):
        return Q()
    return _visible(user) & Q(change_set=None)


def _visible(user: visibility.Reader) -> Q:
    types = Q(event__expanded_types__isnull=True) | Q(event__expanded_types__contained_by=visibility.whole_types(user))
    return visibility.query(user) & (Q(expanded=False) | types)


class Delivery(models.Model):
    """One event for one webhook: whether and when it is sent, and how that went.

    `state` says why it is not sent now; docs/architecture.md lists the transitions. Only states of TIMED_STATES, and
    suspects that are not in hand, have a `due_at`.
    """

    # The `webhook-id` that receivers get, and the id of the failed job on RQ's status page.
    uuid = models.UUIDField('UUID', default=uuid.uuid4, unique=True, editable=False)
    webhook = models.ForeignKey(
        Webhook, on_delete=models.DO_NOTHING, db_constraint=False, related_name='deliveries', db_index=False
    )
    event = models.ForeignKey(Event, on_delete=models.DB_CASCADE, related_name='deliveries')
    # Copied from the event, so that finding an object's earlier deliveries needs no join.
    object_type = models.ForeignKey(
        ContentType, on_delete=models.DB_CASCADE, related_name='+', db_index=False, verbose_name=_('model')
    )
    object_id = models.BigIntegerField(_('object ID'))
    sequence = models.BigIntegerField(_('sequence'))
    expanded = models.BooleanField(default=False, db_default=False)
    # Processes of 1.0.0 insert deliveries while NetBox is upgraded, so the column keeps its name.
    state = models.CharField(max_length=10, db_column='status', default=DeliveryState.READY)
    status = StatusField(_('status'))
    error = models.TextField(_('error'), blank=True)
    response_status = models.PositiveSmallIntegerField(_('response status'), null=True)
    created = models.DateTimeField(_('created'))
    due_at = models.DateTimeField(_('next attempt'), null=True)
    expires_at = models.DateTimeField(_('expires'))
    finished_at = models.DateTimeField(_('finished'), null=True)
    attempt_count = models.PositiveSmallIntegerField(_('attempts'), default=0)
    # Total attempts after a redelivery. Null: the webhook's `max_attempts`.
    attempt_limit = models.PositiveSmallIntegerField(null=True)
    # 0: no suspect. 1: in hand at two deaths in a row. More: deaths of its own process (engine/rescue.py).
    lapses = models.SmallIntegerField(default=0, db_default=0)
    # A backfill recorded it. Changes go before it, and a later change of its object replaces it while it is untried.
    backfill = models.BooleanField(_('backfill'), default=False, db_default=False)
    # It waits until its object is quiet, but no longer than until then. Null: it does not wait for that.
    waits_until = models.DateTimeField(null=True)
    # Its number in the feed. Null: not published.
    position = models.BigIntegerField(null=True)
    # For `change_set`: the transaction, the part, how many parts, how many changes, and the first delivery of the part,
    # which gives the request its id. UNFORMED before the parts are made.
    change_set = models.BigIntegerField(_('change set'), null=True)
    part = models.SmallIntegerField(_('part'), null=True)
    parts = models.SmallIntegerField(_('parts'), null=True)
    change_count = models.IntegerField(null=True)
    lead = models.BigIntegerField(null=True)
    listed = models.BooleanField(default=False)
    # `kind` and `prechange` replace the event's own, once the delivery has superseded others. `seen`: the receiver
    # knows of the object (engine/deliver/superseding.py). `undecided`: it expired undecided.
    span = models.JSONField(null=True)

    objects = LogManager.from_queryset(DeliveryQuerySet)()

    class Meta:
        ordering = ('-pk',)
        verbose_name = _('delivery')
        verbose_name_plural = _('deliveries')
        permissions = [('redeliver', 'Send a delivery again')]
        indexes = [
            models.Index(
                fields=['webhook', 'backfill', 'due_at', 'id'],
                condition=Q(state__in=QUEUED_STATES),
                name='webhooks_delivery_next',
            ),
            # An object's deliveries to a webhook, and those on its tab in NetBox.
            models.Index(
                fields=['object_type', 'object_id', 'webhook', 'state', 'sequence'], name='webhooks_delivery_order'
            ),
            # The first to expire, which has waited longest.
            models.Index(
                fields=['webhook', 'expires_at'],
                condition=Q(state__in=WAITING_STATES),
                name='webhooks_delivery_overdue',
            ),
            # Failures that have no failed job yet.
            models.Index(
                fields=['id'],
                condition=Q(state=DeliveryState.FAILED, listed=False),
                name='webhooks_delivery_unlisted',
            ),
            models.Index(fields=['lead'], condition=Q(lead__isnull=False), name='webhooks_delivery_lead'),
            # Undecided deliveries: regular expressions or many comparisons are still to be evaluated.
            models.Index(
                fields=['webhook', 'id'],
                condition=Q(state=DeliveryState.UNDECIDED),
                name='webhooks_delivery_undecided',
            ),
            # The causes of a webhook's failures. Other webhooks may have a million failures.
            models.Index(fields=['webhook', '-id'], condition=FAILED, name='webhooks_delivery_failed'),
            # The changes that a feed has published, by number.
            models.Index(
                fields=['webhook', 'position'], condition=Q(position__isnull=False), name='webhooks_delivery_published'
            ),
            models.Index(
                fields=['webhook', 'change_set', 'part', 'id'],
                condition=Q(state__in=PENDING_STATES, change_set__isnull=False),
                name='webhooks_delivery_change_set',
            ),
            # A webhook's list.
            models.Index(fields=['webhook', '-id'], name='webhooks_delivery_webhook'),
            # Suspects, and the list of a status that few have. If it had queued rows, PostgreSQL would prefer it to the
            # first index.
            models.Index(fields=['state', '-id'], condition=Q(state__in=RARE_STATES), name='webhooks_delivery_rare'),
        ]

    def __str__(self) -> str:
        return str(self.uuid)

    def get_absolute_url(self) -> str:
        """Return the address of its page in NetBox."""
        return reverse('plugins:webhooks:delivery', args=[self.pk])

    def get_status_color(self) -> str:
        """Return the colour of NetBox's badge for its status."""
        return StatusChoices.colors[self.status]

    @property
    def kind(self) -> str:
        """Return the kind of change that the request reports.

        It differs from the event's if the delivery replaced earlier ones.
        """
        return (self.span or {}).get('kind', self.event.kind)

    def get_kind_display(self) -> str:
        """Return the kind of change in words. A kind from an event rule comes back unchanged."""
        return dict(KindChoices).get(self.kind, self.kind)

    def get_kind_color(self) -> str | None:
        """Return the colour of NetBox's badge for its kind of change. None: an event rule's kind."""
        return KindChoices.colors.get(self.kind)

    @property
    def shown_part(self) -> str:
        """Return its part of a change set, such as '2/3'. '' outside of change sets, and before the parts are made."""
        return f'{self.part}/{self.parts}' if self.parts else ''

    @property
    def is_open(self) -> bool:
        """Whether something may still be sent for it: it waits, or is a test under way."""
        return self.state in OPEN_STATES

    def together(self) -> list['Delivery']:
        """Return the deliveries of its request that have its status, by sequence, with their events.

        Sent alone: only itself.
        """
        if self.lead is None:
            return [self]
        others = Delivery.objects.filter(lead=self.lead, webhook=self.webhook_id, status=self.status)
        return list(others.select_related('event').order_by('sequence', 'pk'))

    @property
    def event_as_sent(self) -> Event:
        """Return the event as this delivery sends it: with the kind and the former state that `span` gives it.

        Do not save it.
        """
        return self.event.spanning(self.span)

"""Tables of NetBox's lists of our models, and their columns.

A column's `render` is for pages, and `value` for exports.
"""

from collections.abc import Iterable
from html import unescape
from itertools import batched
from typing import Any

import django_tables2 as tables
from django.contrib.humanize.templatetags.humanize import intcomma
from django.urls import NoReverseMatch, reverse
from django.utils import timezone
from django.utils.functional import cached_property
from django.utils.html import format_html, format_html_join, strip_tags
from django.utils.safestring import SafeString
from django.utils.translation import gettext_lazy as _
from netbox.tables import NetBoxTable, columns
from utilities.views import get_viewname

from .choices import WAITING_STATUSES, KindChoices
from .models import Credential, Definition, Delivery, Event, Webhook
from .models.querysets import attempts_of
from .object_types import model_of_id
from .presentation import credential_fields, states
from .presentation.fields import is_switch, label, shown_in
from .presentation.links import page_url
from .services import why_not_sent

# Exports read the attempts of this many deliveries at a time.
DELIVERIES_PER_LOOK = 1000

# Attributes of cells: a date must not break, a long name is cut, and an error is shown whole. With NetBox's menu beside
# them, the first columns of each list fit a window of 1,440 pixels, also in German.
ONE_LINE_CELL = {'td': {'class': 'text-nowrap'}}


def text_of(value: Any) -> Any:
    """Return a cell's text without markup, as its tooltip. Values other than HTML are returned unchanged."""
    return unescape(strip_tags(value)) if isinstance(value, SafeString) else value


SHORTENED_CELL = {'td': {'class': 'text-truncate', 'style': 'max-width: 9rem', 'title': text_of}}
WHOLE_CELL = {'td': {'class': 'text-break', 'style': 'min-width: 8rem'}}


def event_of(record: Event | Delivery) -> Event:
    """Return a delivery's event, and an event itself."""
    return record.event if isinstance(record, Delivery) else record


def object_url(record: Event | Delivery) -> str | None:
    """Return the address of the object of an event or a delivery in NetBox, without looking whether it still exists.

    None for deletions, and if the model is gone or has no page.
    """
    event = event_of(record)
    model = model_of_id(event.object_type_id)
    if event.kind == KindChoices.DELETED or model is None:
        return None
    try:
        return reverse(get_viewname(model), args=[event.object_id])
    except NoReverseMatch:
        return None


class KindColumn(columns.ChoiceFieldColumn):
    """Shows the kind of change, and marks tests and backfills."""

    def render(self, record: Event | Delivery, bound_column: Any, value: str) -> SafeString:
        marks = states.marks_of(event_of(record))
        marked = format_html_join('', ' <span class="badge text-bg-secondary">{}</span>', ((mark,) for mark in marks))
        return format_html('{}{}', super().render(record, bound_column, value), marked)


class StatusColumn(columns.ChoiceFieldColumn):
    """Shows a delivery's status, and in a word or two why it waits."""

    def render(self, record: Delivery, bound_column: Any, value: str) -> SafeString:
        wait = why_not_sent.wait_of(record, timezone.now())
        badge = super().render(record, bound_column, value)
        return format_html('{} <span class="text-secondary">{}</span>', badge, wait.label) if wait else badge


class NextAttemptColumn(columns.DateTimeColumn):
    """Shows when a delivery is tried next. Blank if nothing is planned."""

    def render(self, record: Delivery, bound_column: Any, value: str) -> str:
        return super().render(why_not_sent.next_attempt_at(record)) or bound_column.default

    def value(self, record: Delivery, value: str) -> str | None:
        return super().value(why_not_sent.next_attempt_at(record))


def state_badge(webhook: Webhook) -> SafeString:
    """Return the webhook's state as a coloured badge. Takes no query after `states.with_states`."""
    state = states.state_of(webhook)
    return format_html('<span class="badge text-wrap text-bg-{}">{}</span>', state.color, state.label)


# A column for each switch of a webhook.
SwitchColumns = type(
    'SwitchColumns',
    (NetBoxTable,),
    {
        'Meta': NetBoxTable.Meta,
        **{name: columns.BooleanColumn(verbose_name=label(name)) for name in shown_in('list') if is_switch(name)},
    },
)


class WebhookTable(SwitchColumns):
    """The list of webhooks."""

    name = tables.Column(verbose_name=label('name'), linkify=True)
    state = tables.Column(verbose_name=_('State'), accessor='health__suspended_since', empty_values=(), orderable=False)
    reason = tables.Column(verbose_name=_('Reason'), accessor='health__last_error', orderable=False, attrs=WHOLE_CELL)
    # Blank unless `states.with_waiting` has counted them.
    waiting = tables.Column(verbose_name=_('Waiting'), empty_values=(), orderable=False)
    object_types = columns.ContentTypesColumn(verbose_name=label('object_types'), separator=', ', orderable=False)
    events = tables.Column(verbose_name=_('Events'), accessor='kind_labels', orderable=False)
    # Sorting by it would reveal the masked parts.
    payload_url = tables.Column(
        verbose_name=label('payload_url'),
        accessor='masked_url',
        orderable=False,
        attrs=SHORTENED_CELL,
        default=_('Feed'),
    )
    delivered = tables.Column(verbose_name=_('Delivered'), accessor='health__delivered')
    failed = tables.Column(verbose_name=_('Failed'), accessor='health__failed')
    superseded = tables.Column(verbose_name=_('Replaced'), accessor='health__superseded')
    last_status = tables.Column(verbose_name=_('Last Response'), accessor='health__last_status')
    last_success_at = columns.DateTimeColumn(verbose_name=_('Last Success'), accessor='health__last_success_at')
    credential = tables.Column(verbose_name=label('credential'), linkify=True)
    notification_groups = columns.ManyToManyColumn(verbose_name=label('notification_groups'), linkify_item=True)
    tags = columns.TagColumn(url_name='plugins:webhooks:webhook_list')

    class Meta(NetBoxTable.Meta):
        model = Webhook
        fields = (
            'pk', 'id', *shown_in('list'), 'state', 'reason', 'waiting', 'events', 'delivered', 'failed', 'superseded',
            'last_status', 'last_success_at', 'created', 'last_updated',
        )  # fmt: skip
        default_columns = (
            'pk', 'name', 'state', 'reason', 'waiting', 'object_types', 'payload_url', 'delivered', 'failed',
            'last_success_at',
        )  # fmt: skip

    def render_state(self, record: Webhook) -> SafeString:
        return state_badge(record)

    def value_state(self, record: Webhook) -> str:
        return str(states.state_of(record).label)

    def render_reason(self, record: Webhook) -> str:
        return states.reason_of(record)

    def render_waiting(self, record: Webhook) -> str:
        waiting = self.value_waiting(record)
        if not waiting:
            return '' if waiting is None else '0'
        address = page_url('delivery_list', webhook_id=record.pk, status=WAITING_STATUSES)
        more = '+' if waiting >= states.MAX_WAITING_COUNTED else ''
        return format_html('<a href="{}">{}{}</a>', address, intcomma(waiting), more)

    def value_waiting(self, record: Webhook) -> int | None:
        return vars(record).get('waiting')


class CredentialTable(NetBoxTable):
    """The list of credentials. Secrets have no column."""

    name = tables.Column(verbose_name=_('Name'), linkify=True)
    type = columns.ChoiceFieldColumn(verbose_name=_('Type'))
    hosts = columns.ArrayColumn(verbose_name=_('Hosts'), orderable=False)
    tags = columns.TagColumn(url_name='plugins:webhooks:credential_list')

    class Meta(NetBoxTable.Meta):
        model = Credential
        fields = ('pk', 'id', *credential_fields.shown_in('list'), 'created', 'last_updated')
        default_columns = ('pk', 'name', 'type', 'hosts', 'valid_until', 'description')


class DefinitionTable(NetBoxTable):
    """The list of definitions."""

    name = tables.Column(verbose_name=_('Name'), linkify=True)
    data_source = tables.Column(verbose_name=_('Data Source'), linkify=True)
    prune = columns.BooleanColumn(verbose_name=_('Prune'))
    apply_on_sync = columns.BooleanColumn(verbose_name=_('Apply on Sync'))
    applied_by = tables.Column(verbose_name=_('Last Saved by'))
    tags = columns.TagColumn(url_name='plugins:webhooks:definition_list')

    class Meta(NetBoxTable.Meta):
        model = Definition
        fields = (
            'pk', 'id', 'name', 'data_source', 'path', 'apply_on_sync', 'prune', 'applied_by', 'tags', 'created',
            'last_updated',
        )  # fmt: skip
        default_columns = ('pk', 'name', 'data_source', 'path', 'apply_on_sync', 'prune', 'applied_by')


class DeliveryTable(NetBoxTable):
    """The list of deliveries. Its query is `querysets.deliveries`."""

    id = tables.Column(verbose_name=_('ID'), linkify=True)
    uuid = tables.Column(verbose_name='UUID', linkify=True)
    status = StatusColumn(verbose_name=_('Status'))
    webhook = tables.Column(verbose_name=_('Webhook'), linkify=True, attrs=SHORTENED_CELL)
    kind = KindColumn(verbose_name=_('Event'), accessor='get_kind_display', order_by='event__kind')
    object_type = columns.ContentTypeColumn(verbose_name=_('Object Type'), orderable=False)
    # The object itself is never read: a page has objects of many models.
    object = tables.Column(
        verbose_name=_('Object'), accessor='event__object_repr', linkify=object_url, attrs=SHORTENED_CELL
    )
    response_status = tables.Column(verbose_name=_('Response'))
    attempt_count = tables.Column(verbose_name=_('Attempts'))
    change_set = tables.Column(verbose_name=_('Change Set'))
    shown_part = tables.Column(verbose_name=_('Part'), orderable=False)
    backfill = columns.BooleanColumn(verbose_name=_('Backfill'))
    # Sorting by it would look up the last attempt of each delivery in the log.
    last_duration = tables.Column(verbose_name=_('Duration'), accessor='pk', orderable=False, attrs=ONE_LINE_CELL)
    # The time has no index. Ids have one, and the same order.
    created = columns.DateTimeColumn(verbose_name=_('Created'), linkify=True, order_by='pk', attrs=ONE_LINE_CELL)
    due_at = NextAttemptColumn(verbose_name=_('Next Attempt'), accessor='status', order_by='due_at')
    finished_at = columns.DateTimeColumn(verbose_name=_('Finished'))
    error = tables.Column(verbose_name=_('Error'), attrs=WHOLE_CELL)
    actions = columns.ActionsColumn(actions=(), orderable=False)

    class Meta(NetBoxTable.Meta):
        model = Delivery
        fields = (
            'pk', 'id', 'created', 'uuid', 'status', 'webhook', 'kind', 'object_type', 'object', 'object_id',
            'sequence', 'change_set', 'shown_part', 'backfill', 'response_status', 'attempt_count',
            'last_duration', 'due_at', 'finished_at', 'error',
        )  # fmt: skip
        default_columns = (
            'pk',
            'created',
            'status',
            'error',
            'webhook',
            'kind',
            'object',
            'attempt_count',
            'last_duration',
            'due_at',
        )

    def render_last_duration(self, record: Delivery) -> str:
        seconds = self._on_page.get(record.pk)
        return self.default if seconds is None else _('{duration} ms').format(duration=f'{seconds * 1000:,.0f}')

    def value_last_duration(self, record: Delivery) -> float | None:
        # Exports have seconds, and the rows of all pages.
        return self._on_all_pages.get(record.pk)

    @cached_property
    def _on_page(self) -> dict[int, float]:
        return _last_durations(self.paginated_rows)

    @cached_property
    def _on_all_pages(self) -> dict[int, float]:
        return _last_durations(self.rows)


def _last_durations(rows: Iterable[Any]) -> dict[int, float]:
    """Return the seconds of the last attempt of each delivery in these rows, by its id, if there was any."""
    found: dict[int, float] = {}
    for pks in batched((row.record.pk for row in rows), DELIVERIES_PER_LOOK):
        attempts = attempts_of(pks, 'duration')
        found |= {pk: newest_first[0].duration for pk, newest_first in attempts.items() if newest_first}
    return found


class ObjectDeliveryTable(DeliveryTable):
    """The deliveries of an object: the columns of the object are hidden at first."""

    class Meta(DeliveryTable.Meta):
        default_columns = (
            'pk', 'created', 'status', 'error', 'webhook', 'kind', 'response_status', 'attempt_count', 'last_duration',
            'due_at',
        )  # fmt: skip


class EventTable(NetBoxTable):
    """The list of events."""

    id = tables.Column(verbose_name=_('ID'), linkify=True)
    timestamp = columns.DateTimeColumn(
        verbose_name=_('Time'), linkify=True, timespec='milliseconds', attrs=ONE_LINE_CELL
    )
    kind = KindColumn(verbose_name=_('Event'))
    object_type = columns.ContentTypeColumn(verbose_name=_('Object Type'), orderable=False)
    object = tables.Column(verbose_name=_('Object'), accessor='object_repr', linkify=object_url, attrs=SHORTENED_CELL)
    test = columns.BooleanColumn(verbose_name=_('Test'))
    backfill = columns.BooleanColumn(verbose_name=_('Backfill'), order_by='backfill_for')
    caused_by = columns.ArrayColumn(verbose_name=_('Caused by'), orderable=False, attrs=SHORTENED_CELL)
    partial = columns.ArrayColumn(verbose_name=_('Keys without Data'), orderable=False, attrs=SHORTENED_CELL)
    dispatched_at = columns.DateTimeColumn(verbose_name=_('Processed'))
    error = tables.Column(verbose_name=_('Error'), attrs=WHOLE_CELL)
    actions = columns.ActionsColumn(actions=(), orderable=False)

    class Meta(NetBoxTable.Meta):
        model = Event
        fields = (
            'pk', 'id', 'timestamp', 'uuid', 'kind', 'object_type', 'object', 'object_id', 'sequence', 'username',
            'request_id', 'test', 'backfill', 'caused_by', 'partial', 'skipped', 'dispatched_at', 'error',
        )  # fmt: skip
        default_columns = ('timestamp', 'kind', 'object_type', 'object', 'username', 'sequence', 'error')

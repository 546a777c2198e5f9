"""Cards on NetBox's pages of webhooks, credentials, deliveries and events.

A panel's `get_context` prepares the template's context, from which `should_render` decides whether it is shown. The
view prepares the contents of a PartPanel.
"""

from typing import Any

from django.contrib.postgres.fields import ArrayField
from django.db.models import BooleanField, DateField, Field, ForeignKey, ManyToManyField
from django.utils import timezone
from django.utils.text import capfirst
from django.utils.translation import gettext_lazy as _
from netbox.ui import attrs, panels

from ..choices import StatusChoices
from ..models import Definition, Delivery
from ..presentation import credential_fields
from ..presentation.fields import GROUPS, Group, field, label, shown_in
from ..presentation.links import page_url
from ..services.why_not_sent import next_attempt_at
from ..tables import state_badge
from . import attributes, history
from .attributes import ChangedObjectAttr, ComputedLines, ComputedText, ComputedTime, LinesAttr, StatusAttr


class ConditionsPanel(panels.JSONPanel):
    """Shows a JSON field of a webhook, such as its conditions. Left out if it is empty."""

    def should_render(self, context: dict[str, Any]) -> bool:
        return bool(context['data'])


class BodyTemplatePanel(panels.TextCodePanel):
    """Shows a webhook's body template. Left out if it is blank."""

    def should_render(self, context: dict[str, Any]) -> bool:
        return bool(context['value'])


class PartPanel(panels.TemplatePanel):
    """Shows a part of the page that the view has put into the context as `part`. Hidden if the part is empty."""

    def __init__(self, part: str, template_name: str, **kwargs: Any) -> None:
        super().__init__(template_name, **kwargs)
        self._part = part

    def should_render(self, context: dict[str, Any]) -> bool:
        return bool(context[self._part])


class FilledPanel(panels.ObjectAttributesPanel):
    """A card without its empty rows."""

    def get_context(self, context: dict[str, Any]) -> dict[str, Any]:
        own = super().get_context(context)
        return {**own, 'attrs': [attr for attr in own['attrs'] if attr['value'] != attrs.PLACEHOLDER_HTML]}


#
# Webhook and credential
#

MONOSPACE_CLASSES = 'font-monospace text-break'
# Fields whose row depends on more than their type.
SPECIAL_ATTRIBUTES = {
    'object_types': ComputedLines(attributes.type_names, label=label('object_types')),
    'payload_url': ComputedText(
        lambda webhook: webhook.masked_url or _('Feed'), label=label('payload_url'), style=MONOSPACE_CLASSES
    ),
    'additional_headers': LinesAttr('masked_headers', label=label('additional_headers'), style='font-monospace'),
    'secret': ComputedLines(attributes.secret, label=label('secret')),
    'filters': LinesAttr('filter_lines', label=label('filters'), style=MONOSPACE_CLASSES),
    'timeout': ComputedText(attributes.timeout, label=label('timeout')),
    'rate_limit': attrs.TextAttr('rate_limit', label=label('rate_limit'), format_string=_('{} per second')),
    'quiet': attrs.TextAttr('quiet', label=label('quiet'), format_string=_('{} seconds')),
    'quiet_max': attrs.TextAttr('quiet_max', label=label('quiet_max'), format_string=_('{} seconds')),
}
# Extra rows by the field that they stand below. The field itself may be left out.
DERIVED_ATTRIBUTES = {
    'type_delete': {'kinds': attrs.TextAttr('kind_labels', label=_('Events'))},
    'secret': {
        'public_key': attrs.TextAttr('public_key', label=_('Public key'), style=MONOSPACE_CLASSES, copy_button=True)
    },
}


# (type of a field, its row on a card, arguments of the row)
ROWS = (
    (BooleanField, attrs.BooleanAttr, {}),
    (DateField, attrs.DateTimeAttr, {'spec': 'date'}),
    (ArrayField, attrs.ArrayAttr, {'style': 'text-break'}),
    (ForeignKey, attrs.RelatedObjectAttr, {'linkify': True}),
    (ManyToManyField, attrs.RelatedObjectListAttr, {'linkify': True}),
)


def attribute(of_model: Field) -> attrs.ObjectAttribute:
    """Return the row of a card that shows a field. Its type decides."""
    name, title = of_model.name, capfirst(of_model.verbose_name)
    for kind, row, arguments in ROWS:
        if isinstance(of_model, kind):
            return row(name, label=title, **arguments)
    if of_model.choices:
        return attrs.ChoiceAttr(name, label=title)
    style = MONOSPACE_CLASSES if name.endswith(('_path', '_url')) else 'text-break'
    return attrs.TextAttr(name, label=title, style=style)


def card(group: Group) -> panels.ObjectAttributesPanel:
    """Return the card of a group of fields, with extra rows. LEFT_OUT['cards'] names the fields that it leaves out."""
    shown = {}
    for name in group.names:
        if name in shown_in('cards'):
            shown[name] = SPECIAL_ATTRIBUTES.get(name) or attribute(field(name))
        shown |= DERIVED_ATTRIBUTES.get(name, {})
    return _card(group.title, shown)


def _card(title: str, rows: dict[str, attrs.ObjectAttribute]) -> panels.ObjectAttributesPanel:
    return type('FieldsPanel', (panels.ObjectAttributesPanel,), {**rows, 'title': title})()


def cards() -> list[panels.ObjectAttributesPanel]:
    """Return one card for each of GROUPS, in their order. views/webhook.py relies on that order."""
    return [card(group) for group in GROUPS]


# The fields of a credential but its name, which is the page's title. Its secret is masked.
CREDENTIAL_CARD = _card(
    _('Credential'),
    {name: attribute(credential_fields.field(name)) for name in credential_fields.shown_in('card')},
)
# The fields of a definition but its name.
DEFINITION_CARD = _card(
    _('Definition'),
    {
        name: attribute(Definition._meta.get_field(name))
        for name in ('data_source', 'path', 'apply_on_sync', 'prune', 'applied_by')
    },
)


class HealthPanel(FilledPanel):
    """Shows the webhook's state, its counts and its last request."""

    title = _('Health')

    state = ComputedText(state_badge, label=_('State'))
    delivered = attrs.NumericAttr('health.delivered', label=_('Delivered'))
    failed = attrs.NumericAttr('health.failed', label=_('Failed'))
    superseded = attrs.NumericAttr('health.superseded', label=_('Replaced'))
    last_attempt_at = attrs.DateTimeAttr('health.last_attempt_at', label=_('Last attempt'))
    last_success_at = attrs.DateTimeAttr('health.last_success_at', label=_('Last success'))
    last_status = attrs.NumericAttr('health.last_status', label=_('Last response status'))
    last_error = attrs.TextAttr('health.last_error', label=_('Last error'), style='text-break')
    refused_since = attrs.DateTimeAttr('health.refused_since', label=_('Errors since'))
    suspended_since = attrs.DateTimeAttr('health.suspended_since', label=_('Suspended since'))
    next_attempt_at = ComputedTime(attributes.probe_at, label=_('Next attempt'))


class HistoryPanel(panels.Panel):
    """Shows the chart of the last day, or of the period that the address names.

    The number of failures leads to their list, if the user may view deliveries.
    """

    title = _('Deliveries and Failures')
    template_name = 'webhooks/panels/history.html'

    def get_context(self, context: dict[str, Any]) -> dict[str, Any]:
        own = super().get_context(context)
        period = history.PERIODS.get(own['request'].GET.get('period'), history.DAY)
        figures = history.context(own['object'], period, timezone.now())
        return {**own, **figures, 'periods': history.PERIODS.values(), 'failed_url': self._failed_url(own, figures)}

    def _failed_url(self, context: dict[str, Any], figures: dict[str, Any]) -> str:
        if not context['request'].user.has_perm('webhooks.view_delivery'):
            return ''
        since = figures['slots'][0].since.isoformat()
        filters = {'webhook_id': context['object'].pk, 'status': StatusChoices.FAILED, 'test': 'false'}
        return page_url('delivery_list', **filters, finished_at__gte=since)


#
# Delivery and event
#


class DeliveryPanel(FilledPanel):
    """Shows the status of a delivery, its error, its numbers and its times."""

    title = _('Delivery')

    status = StatusAttr('status', label=_('Status'))
    error = attrs.TextAttr('error', label=_('Error'), style='text-break')
    kind = attrs.ChoiceAttr('kind', label=_('Event'))
    webhook = attrs.RelatedObjectAttr('webhook', linkify=True, label=_('Webhook'))
    request_id = ComputedText(attributes.request_id, label='webhook-id', style='font-monospace', copy_button=True)
    uuid = ComputedText(
        lambda delivery: '' if attributes.is_first(delivery) else delivery.uuid,
        label='UUID',
        style='font-monospace',
        copy_button=True,
    )
    attempt_count = attrs.NumericAttr('attempt_count', label=_('Attempts'))
    change_set = attrs.NumericAttr('change_set', label=_('Change set'))
    shown_part = attrs.TextAttr('shown_part', label=_('Part of the change set'))
    position = attrs.NumericAttr('position', label=_('Position in the feed'))
    backfill = attrs.BooleanAttr('backfill', label=_('Backfill'), display_false=False)
    created = attrs.DateTimeAttr('created', label=_('Created'))
    next_attempt_at = ComputedTime(next_attempt_at, label=_('Next attempt'))
    finished_at = attrs.DateTimeAttr('finished_at', label=_('Finished'))
    expires_at = ComputedTime(lambda delivery: delivery.expires_at if delivery.is_open else None, label=_('Expires'))


class EventPanel(FilledPanel):
    """Shows an event: the object, the change, its time, its user and its origin."""

    title = _('Event')

    kind = attrs.ChoiceAttr('kind', label=_('Event'))
    object_type = attrs.TextAttr('object_type', label=_('Object type'))
    object_id = ChangedObjectAttr('object_id', label=_('Object'))
    timestamp = attrs.DateTimeAttr('timestamp', label=_('Time'))
    username = attrs.TextAttr('username', label=_('User'))
    request_id = attrs.TemplatedAttr(
        'request_id', template_name='core/objectchange/attrs/request_id.html', label=_('Request ID')
    )
    sequence = attrs.NumericAttr('sequence', label=_('Sequence'))
    uuid = attrs.TextAttr('uuid', label='UUID', style='font-monospace', copy_button=True)
    test = attrs.BooleanAttr('test', label=_('Test'), display_false=False)
    backfill = attrs.BooleanAttr('backfill', label=_('Backfill'), display_false=False)
    caused_by = attrs.ArrayAttr('caused_by', label=_('Caused by'), style='text-break')
    partial = attrs.ArrayAttr('partial', label=_('Keys without data'), style='text-break')
    error = attrs.TextAttr('error', label=_('Error'), style='text-break')


class ChangeSetPanel(panels.ObjectsTablePanel):
    """Lists the deliveries of the same change set. Left out if there are no others."""

    def should_render(self, context: dict[str, Any]) -> bool:
        delivery = context['object']
        others = Delivery.objects.filter(webhook=delivery.webhook_id, change_set=delivery.change_set)
        is_any = delivery.change_set is not None and others.exclude(pk=delivery.pk).exists()
        return is_any and super().should_render(context)


class EventStatePanel(FilledPanel):
    """Shows when the event was dispatched, and how many webhooks skipped it."""

    title = _('Processing')

    dispatched_at = attrs.DateTimeAttr('dispatched_at', label=_('Processed'))
    skipped = attrs.NumericAttr('skipped', label=_('Webhooks that skipped it'))

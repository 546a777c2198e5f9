"""The admin's pages of events."""

from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest
from django.urls import reverse
from django.utils.html import format_html
from django.utils.translation import gettext_lazy as _

from ..models import Delivery, Event, querysets
from ..presentation.json_text import readable
from ..presentation.moments import moment
from .display import block, column, delivery_status
from .filters import ObjectTypeFilter
from .log import LogAdmin, ReadOnly


class DeliveryInline(ReadOnly, admin.TabularInline):
    """Shows an event's deliveries, each with a link to its page."""

    model = Delivery
    fields = ('recorded', 'webhook', 'shown_status', 'error', 'response_status', 'attempt_count')
    readonly_fields = fields
    verbose_name_plural = _('deliveries')

    recorded = column(
        _('Created'),
        lambda delivery: format_html(
            '<a href="{}">{}</a>',
            reverse('admin:webhooks_delivery_change', args=[delivery.pk]),
            moment(delivery.created),
        ),
    )
    shown_status = column(_('Status'), delivery_status)

    def get_queryset(self, request: HttpRequest) -> QuerySet[Delivery]:
        return super().get_queryset(request).select_related('webhook__health', 'webhook__backfill')


class EventAdmin(LogAdmin):
    """Lists and shows events with their deliveries."""

    name_lookup = 'object_repr'
    list_display = ('when', 'happened', 'object', 'username', 'error', 'skipped', 'processed')
    list_display_links = ('when',)
    list_filter = ('kind', ObjectTypeFilter, 'test', 'timestamp')
    # Only this column has an index. Sorting by another would read the whole log.
    sortable_by = ('when',)
    search_help_text = _('Search by ID of the event, object ID, or part of the object name')
    inlines = (DeliveryInline,)
    fieldsets = (
        (None, {'fields': (('happened', 'object', 'when', 'processed'), ('error',))}),
        (_('Origin'), {'fields': (('uuid', 'username', 'request_id', 'sequence', 'caused_by'),)}),
        (_('Data'), {'fields': (('shown_data',), ('partial',))}),
    )
    actions = None

    when = column(_('Time'), lambda event: moment(event.timestamp), ordering='pk')
    processed = column(_('Processed'), lambda event: moment(event.dispatched_at) if event.dispatched_at else '')
    shown_data = column(_('Data'), lambda event: block(readable(event.data)))

    def get_queryset(self, request: HttpRequest) -> QuerySet[Event]:
        return querysets.events().select_related('object_type')

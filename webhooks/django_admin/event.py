"""The admin's pages of events."""

from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest
from django.urls import reverse
from django.utils import timezone
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.translation import gettext_lazy as _

from .. import object_types
from ..models import Delivery, Event, querysets
from ..presentation.json_text import readable
from ..presentation.moments import moment
from ..presentation.states import marks_of
from ..services.why_not_sent import wait_of
from .base import BaseAdmin
from .delivery import ObjectChangeList, search_log
from .display import block, existing_objects, object_link, word
from .filters import ObjectTypeFilter
from .read_only import ReadOnly


class DeliveryInline(ReadOnly, admin.TabularInline):
    """Shows an event's deliveries, each with a link to its page."""

    model = Delivery
    fields = ('recorded', 'webhook', 'shown_status', 'error', 'response_status', 'attempt_count')
    readonly_fields = fields
    verbose_name_plural = _('deliveries')

    def get_queryset(self, request: HttpRequest) -> QuerySet[Delivery]:
        return super().get_queryset(request).select_related('webhook__health', 'webhook__backfill')

    @admin.display(description=_('Created'))
    def recorded(self, delivery: Delivery) -> SafeString:
        page = reverse('admin:webhooks_delivery_change', args=[delivery.pk])
        return format_html('<a href="{}">{}</a>', page, moment(delivery.created))

    @admin.display(description=_('Status'))
    def shown_status(self, delivery: Delivery) -> SafeString:
        wait = wait_of(delivery, timezone.now())
        return word(delivery.get_status_display(), delivery.get_status_color(), wait.text if wait else '')


class EventAdmin(ReadOnly, BaseAdmin):
    """Lists and shows events with their deliveries. Nothing can be changed."""

    list_display = ('when', 'happened', 'object', 'username', 'error', 'skipped', 'processed')
    list_display_links = ('when',)
    list_filter = ('kind', ObjectTypeFilter, 'test', 'timestamp')
    list_per_page = 50
    show_full_result_count = False
    # Only this column has an index. Sorting by another would read the whole log.
    sortable_by = ('when',)
    search_fields = ('uuid',)
    search_help_text = _('Search by ID of the event, object ID, or part of the object name')
    inlines = (DeliveryInline,)
    fieldsets = (
        (None, {'fields': (('happened', 'object', 'when', 'processed'), 'error')}),
        (_('Origin'), {'fields': (('uuid', 'username', 'request_id', 'sequence', 'caused_by'),)}),
        (_('Data'), {'fields': ('shown_data', 'partial')}),
    )
    may_be_blank = ('processed', 'error', 'username', 'request_id', 'caused_by', 'shown_data', 'partial')
    actions = None

    def get_changelist(self, request: HttpRequest, **kwargs) -> type[ObjectChangeList]:
        return ObjectChangeList

    def get_queryset(self, request: HttpRequest) -> QuerySet[Event]:
        return querysets.events().select_related('object_type')

    def get_object(self, request: HttpRequest, object_id: str, from_field: str | None = None) -> Event | None:
        event = super().get_object(request, object_id, from_field)
        if event is not None:
            event.existing_objects = existing_objects([event])
        return event

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Event], search_term: str
    ) -> tuple[QuerySet[Event], bool]:
        return search_log(queryset, search_term, 'object_repr'), False

    @admin.display(description=_('Time'), ordering='pk')
    def when(self, event: Event) -> str:
        return moment(event.timestamp)

    @admin.display(description=_('Event'))
    def happened(self, event: Event) -> str:
        change = f'{object_types.name_of(event.object_type)}: {event.get_kind_display()}'
        return ' · '.join([change, *marks_of(event)])

    @admin.display(description=_('Object'))
    def object(self, event: Event) -> SafeString | str:
        return object_link(event, event.existing_objects)

    @admin.display(description=_('Processed'))
    def processed(self, event: Event) -> str:
        return moment(event.dispatched_at) if event.dispatched_at else ''

    @admin.display(description=_('Caused by'))
    def caused_by(self, event: Event) -> str:
        return ', '.join(event.caused_by or ())

    @admin.display(description=_('Keys without data'))
    def partial(self, event: Event) -> str:
        return ', '.join(event.partial or ())

    @admin.display(description=_('Data'))
    def shown_data(self, event: Event) -> SafeString | str:
        return block(readable(event.data))

"""The admin's pages of deliveries: list, one delivery with its attempts, and redelivery."""

import uuid
from typing import Any

from django.contrib import admin, messages
from django.contrib.admin.options import ActionLocation
from django.contrib.admin.views.main import ChangeList
from django.db.models import Q, QuerySet
from django.forms import BaseInlineFormSet
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.urls import reverse
from django.utils import timezone
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _

from .. import object_types
from ..choices import StatusChoices
from ..models import Attempt, Delivery, querysets
from ..presentation.headlines import headline
from ..presentation.json_text import readable
from ..presentation.moments import moment
from ..presentation.states import marks_of
from ..services import confirmation, redelivery, sent_bodies
from ..services.actions import REDELIVER
from ..services.why_not_sent import next_attempt_at, wait_of
from ..storable import is_key
from .base import BaseAdmin
from .display import block, existing_objects, headers_block, object_link, reason_word, word
from .filters import ObjectTypeFilter
from .read_only import ReadOnly

# Such an action can be taken in the list, for selected rows, and on an object's page.
BOTH = [ActionLocation.CHANGE_LIST, ActionLocation.CHANGE_FORM]


class AttemptFormSet(BaseInlineFormSet):
    """The attempts in which a delivery went out, the oldest first."""

    def get_queryset(self) -> list[Attempt]:
        if not hasattr(self, '_queryset'):
            self._queryset = querysets.attempts_of([self.instance.pk])[self.instance.pk][::-1]
        return self._queryset


class AttemptInline(ReadOnly, admin.TabularInline):
    """Shows the attempts on a delivery's page: when, how long, the result and the answer."""

    model = Attempt
    formset = AttemptFormSet
    fields = ('number', 'started', 'took', 'outcome', 'answer')
    readonly_fields = fields

    @admin.display(description=_('Started'))
    def started(self, attempt: Attempt) -> str:
        return moment(attempt.started_at)

    @admin.display(description=_('Duration'))
    def took(self, attempt: Attempt) -> str:
        return f'{attempt.duration:.3f} s'

    @admin.display(description=_('Result'))
    def outcome(self, attempt: Attempt) -> SafeString:
        if attempt.error:
            return reason_word(attempt.error)
        return word(_('confirmed') if attempt.response_status is None else f'HTTP {attempt.response_status}', 'green')

    @admin.display(description=_('Response'))
    def answer(self, attempt: Attempt) -> SafeString | str:
        if attempt.response_status is None and not attempt.response_headers:
            return ''
        return format_html(
            '<details><summary>{}</summary>{}{}</details>',
            _('Show'),
            headers_block(attempt.response_headers),
            _answer(attempt),
        )


def _answer(attempt: Attempt) -> SafeString | str:
    """Return the answer's body, with its JSON laid out. A sentence below says if it is cut."""
    shown = block(readable(attempt.response_body))
    if not attempt.is_answer_cut:
        return shown
    note = gettext('Cut off: only the first 4 KiB of an answer are kept.')
    return format_html('{}<p class="wh-quiet">{}</p>', shown, note)


class ObjectChangeList(ChangeList):
    """A list whose rows know the existing objects of NetBox that they are about. Takes one query a model."""

    def get_results(self, request: HttpRequest) -> None:
        super().get_results(request)
        objects = existing_objects(self.result_list)
        for row in self.result_list:
            row.existing_objects = objects


def search_log(queryset: QuerySet, search_term: str, name: str) -> QuerySet:
    """Return the rows with this UUID or object ID, or with this text in the object's name.

    `name` is the lookup of the name.
    """
    term = search_term.strip()
    if not term:
        return queryset
    try:
        return queryset.filter(uuid=uuid.UUID(term))
    except ValueError:
        named = Q(**{f'{name}__icontains': term})
        return queryset.filter(named | Q(object_id=int(term)) if is_key(term) else named)


class DeliveryAdmin(ReadOnly, BaseAdmin):
    """Lists, shows and redelivers deliveries."""

    list_display = (
        'recorded',
        'shown_status',
        'error',
        'webhook',
        'happened',
        'object',
        'attempt_count',
        'next_attempt',
    )
    list_display_links = ('recorded',)
    list_filter = ('status', 'webhook', ObjectTypeFilter, 'event__test', 'backfill', 'created')
    list_per_page = 50
    show_full_result_count = False
    # Only this column has an index. Sorting by another would read the whole log.
    sortable_by = ('recorded',)
    search_fields = ('uuid',)
    search_help_text = _('Search by webhook-id, object ID, or part of the object name')
    inlines = (AttemptInline,)
    fieldsets = (
        (None, {'fields': (('shown_status', 'webhook', 'happened', 'object'), 'waits', 'error')}),
        (_('Response'), {'fields': ('response_status', 'response_headers', 'response_body')}),
        (
            _('Request'),
            {
                'fields': ('request_line', 'request_headers', 'request_body', 'partial'),
                'description': _('From the last attempt.'),
            },
        ),
        (_('Times'), {'fields': (('recorded', 'next_attempt', 'finished', 'expires'),)}),
        (_('Origin'), {'fields': (('uuid', 'user', 'request_id', 'sequence', 'caused_by', 'part_of_set'),)}),
    )
    may_be_blank = (
        'waits',
        'error',
        'response_status',
        'response_headers',
        'response_body',
        'request_headers',
        'partial',
        'next_attempt',
        'finished',
        'expires',
        'user',
        'request_id',
        'caused_by',
        'part_of_set',
    )

    @admin.action(description=REDELIVER.label, description_plural=REDELIVER.list_label, location=BOTH)
    def redeliver(self, request: HttpRequest, queryset: QuerySet[Delivery]) -> HttpResponse | None:
        """Redeliver one delivery at once from its page, or ask first about those selected in the list."""
        if request.resolver_match.url_name == 'webhooks_delivery_change':
            self._tell_redelivered(request, redelivery.redeliver(queryset))
            return None
        if request.POST.get('select_across') == '1' and request.GET.get('status__exact') != StatusChoices.SUPERSEDED:
            # The receivers of superseded ones got a later one.
            queryset = queryset.exclude(status=StatusChoices.SUPERSEDED)
        return self._confirm_or_redeliver(request, queryset)

    def _confirm_or_redeliver(self, request: HttpRequest, deliveries: QuerySet[Delivery]) -> HttpResponse | None:
        """Return a page that asks with the numbers. Once the user confirms these, redeliver and return None.

        Deliveries that are closed after the count are left out.
        """
        counted_at = confirmation.confirmed_at(request)
        if counted_at is None:
            shown = {
                **self.admin_site.each_context(request),
                **confirmation.context(request, redelivery.foretell(deliveries), REDELIVER),
                'opts': self.opts,
                'title': REDELIVER.label,
                'return_url': request.get_full_path(),
            }
            return TemplateResponse(request, 'admin/webhooks/redeliver.html', shown)
        self._tell_redelivered(request, redelivery.redeliver(deliveries, counted_at=counted_at))
        return None

    def _tell_redelivered(self, request: HttpRequest, count: int) -> None:
        """Tell the user how many deliveries are sent again, or why none is."""
        if count:
            self.message_user(request, redelivery.announce(count), messages.SUCCESS)
        else:
            text = _('Nothing to redeliver: only finished deliveries can be redelivered.')
            self.message_user(request, text, messages.WARNING)

    #
    # Reading
    #

    def render_change_form(
        self, request: HttpRequest, context: dict[str, Any], *args, obj: Delivery | None = None, **kwargs
    ) -> HttpResponse:
        context['subtitle'] = headline(obj)
        return super().render_change_form(request, context, *args, obj=obj, **kwargs)

    def get_changelist(self, request: HttpRequest, **kwargs) -> type[ChangeList]:
        return ObjectChangeList

    def get_queryset(self, request: HttpRequest) -> QuerySet[Delivery]:
        return querysets.deliveries().select_related('object_type')

    def get_object(self, request: HttpRequest, object_id: str, from_field: str | None = None) -> Delivery | None:
        delivery = super().get_object(request, object_id, from_field)
        if delivery is not None:
            delivery.existing_objects = existing_objects([delivery])
            delivery.all_attempts = querysets.attempts_of([delivery.pk])[delivery.pk]
            delivery.last_attempt = next(iter(delivery.all_attempts), None)
        return delivery

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Delivery], search_term: str
    ) -> tuple[QuerySet[Delivery], bool]:
        return search_log(queryset, search_term, 'event__object_repr'), False

    #
    # Columns and fields
    #

    @admin.display(description=_('Created'), ordering='pk')
    def recorded(self, delivery: Delivery) -> str:
        return moment(delivery.created)

    @admin.display(description=_('Finished'))
    def finished(self, delivery: Delivery) -> str:
        return moment(delivery.finished_at) if delivery.finished_at else ''

    @admin.display(description=_('Expires'))
    def expires(self, delivery: Delivery) -> str:
        return moment(delivery.expires_at) if delivery.is_open else ''

    @admin.display(description=_('Part of the change set'))
    def part_of_set(self, delivery: Delivery) -> str:
        return delivery.shown_part

    @admin.display(description=_('Status'))
    def shown_status(self, delivery: Delivery) -> SafeString:
        wait = wait_of(delivery, timezone.now())
        shown = word(delivery.get_status_display(), delivery.get_status_color(), wait.text if wait else '')
        return format_html('{} <span class="wh-quiet">{}</span>', shown, wait.label) if wait else shown

    @admin.display(description=_('Why it waits'))
    def waits(self, delivery: Delivery) -> SafeString | str:
        wait = wait_of(delivery, timezone.now(), querysets.earlier_of(delivery))
        if wait is None or wait.earlier is None:
            return wait.text if wait else ''
        page = reverse('admin:webhooks_delivery_change', args=[wait.earlier.pk])
        return format_html('{} <a href="{}">{}</a>', wait.text, page, _('Delivery {id}').format(id=wait.earlier.pk))

    @admin.display(description=_('Event'))
    def happened(self, delivery: Delivery) -> str:
        change = f'{object_types.name_of(delivery.object_type)}: {delivery.get_kind_display()}'
        return ' · '.join([change, *marks_of(delivery.event)])

    @admin.display(description=_('Object'))
    def object(self, delivery: Delivery) -> SafeString | str:
        return object_link(delivery, delivery.existing_objects)

    @admin.display(description=_('Next attempt'))
    def next_attempt(self, delivery: Delivery) -> str:
        planned = next_attempt_at(delivery)
        return moment(planned) if planned else ''

    @admin.display(description=_('User'))
    def user(self, delivery: Delivery) -> str:
        return delivery.event.username or ''

    @admin.display(description=_('Request ID'))
    def request_id(self, delivery: Delivery) -> str:
        return str(delivery.event.request_id or '')

    @admin.display(description=_('Caused by'))
    def caused_by(self, delivery: Delivery) -> str:
        return ', '.join(delivery.event.caused_by or ())

    @admin.display(description=_('Keys without data'))
    def partial(self, delivery: Delivery) -> str:
        return ', '.join(delivery.event.partial or ())

    @admin.display(description=_('URL'))
    def request_line(self, delivery: Delivery) -> str:
        if delivery.last_attempt is None:
            webhook = delivery.webhook
            return gettext('Feed') if webhook.is_feed else f'{webhook.http_method} {webhook.masked_url}'
        return f'{delivery.last_attempt.method} {delivery.last_attempt.url}'

    @admin.display(description=_('Headers'))
    def request_headers(self, delivery: Delivery) -> SafeString | str:
        return headers_block(delivery.last_attempt.request_headers) if delivery.last_attempt else ''

    @admin.display(description=_('Body'))
    def request_body(self, delivery: Delivery) -> SafeString | str:
        body = sent_bodies.last_body(delivery, delivery.all_attempts, may_build=True)
        return format_html('<p class="wh-quiet">{}</p>{}', body.note, block(body.text))

    @admin.display(description=_('Headers'))
    def response_headers(self, delivery: Delivery) -> SafeString | str:
        return headers_block(delivery.last_attempt.response_headers) if delivery.last_attempt else ''

    @admin.display(description=_('Body'))
    def response_body(self, delivery: Delivery) -> SafeString | str:
        return _answer(delivery.last_attempt) if delivery.last_attempt else ''

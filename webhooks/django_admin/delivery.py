"""The admin's pages of deliveries: list, one delivery with its attempts, and redelivery."""

from typing import Any

from django.contrib import admin
from django.contrib.admin.options import ActionLocation
from django.db.models import QuerySet
from django.forms import BaseInlineFormSet
from django.http import HttpRequest, HttpResponse
from django.urls import reverse
from django.utils import timezone
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _

from ..choices import StatusChoices
from ..models import Attempt, Delivery, querysets
from ..presentation.headlines import headline
from ..presentation.json_text import readable
from ..presentation.moments import moment
from ..services import confirmation, redelivery, sent_bodies
from ..services.actions import REDELIVER
from ..services.why_not_sent import next_attempt_at, wait_of
from .display import block, column, delivery_status, headers_block, reason_word, word
from .filters import ObjectTypeFilter
from .log import LogAdmin, ReadOnly

# Such an action can be taken in the list, for selected rows, and on an object's page.
BOTH = [ActionLocation.CHANGE_LIST, ActionLocation.CHANGE_FORM]


class AttemptFormSet(BaseInlineFormSet):
    """The attempts in which a delivery went out, the oldest first."""

    def get_queryset(self) -> list[Attempt]:
        return self.instance.all_attempts[::-1]


def _outcome(attempt: Attempt) -> SafeString:
    if attempt.error:
        return reason_word(attempt.error)
    return word(_('confirmed') if attempt.response_status is None else f'HTTP {attempt.response_status}', 'green')


def _answer(attempt: Attempt) -> SafeString | str:
    """Return headers and body of the answer, folded, with its JSON laid out. A sentence below says if it is cut."""
    if attempt.response_status is None and not attempt.response_headers:
        return ''
    note = gettext('Cut off: only the first 4 KiB of an answer are kept.') if attempt.is_answer_cut else ''
    return format_html(
        '<details><summary>{}</summary>{}{}<p class="wh-quiet">{}</p></details>',
        _('Show'),
        headers_block(attempt.response_headers),
        block(readable(attempt.response_body)),
        note,
    )


class AttemptInline(ReadOnly, admin.TabularInline):
    """Shows the attempts on a delivery's page: when, how long, the result and the answer."""

    model = Attempt
    formset = AttemptFormSet
    fields = ('number', 'started', 'took', 'outcome', 'answer')
    readonly_fields = fields

    started = column(_('Started'), lambda attempt: moment(attempt.started_at))
    took = column(_('Duration'), lambda attempt: f'{attempt.duration:.3f} s')
    outcome = column(_('Result'), _outcome)
    answer = column(_('Response'), _answer)


def _waits(delivery: Delivery) -> SafeString | str:
    wait = wait_of(delivery, timezone.now(), querysets.earlier_of(delivery))
    if wait is None or wait.earlier is None:
        return wait.text if wait else ''
    page = reverse('admin:webhooks_delivery_change', args=[wait.earlier.pk])
    return format_html('{} <a href="{}">{}</a>', wait.text, page, _('Delivery {id}').format(id=wait.earlier.pk))


def _next_attempt(delivery: Delivery) -> str:
    planned = next_attempt_at(delivery)
    return moment(planned) if planned else ''


def _request(delivery: Delivery) -> SafeString | str:
    """Return the last request: address, headers and body. Before the first attempt, the one that would be sent."""
    webhook, last = delivery.webhook, next(iter(delivery.all_attempts), None)
    address = f'{last.method} {last.url}' if last else f'{webhook.http_method} {webhook.masked_url}'
    body = sent_bodies.last_body(delivery, delivery.all_attempts, may_build=True)
    return format_html(
        '{}{}<p class="wh-quiet">{}</p>{}',
        gettext('Feed') if webhook.is_feed and not last else address,
        headers_block(last.request_headers) if last else '',
        body.note,
        block(body.text),
    )


class DeliveryAdmin(LogAdmin):
    """Lists, shows and redelivers deliveries."""

    name_lookup, costly = 'event__object_repr', 'last_request'
    list_display = (
        'recorded', 'shown_status', 'error', 'webhook', 'happened', 'object', 'attempt_count', 'next_attempt',
    )  # fmt: skip
    list_display_links = ('recorded',)
    list_filter = ('status', 'webhook', ObjectTypeFilter, 'event__test', 'backfill', 'created')
    # Only this column has an index. Sorting by another would read the whole log.
    sortable_by = ('recorded',)
    search_help_text = _('Search by webhook-id, object ID, or part of the object name')
    inlines = (AttemptInline,)
    fieldsets = (
        (None, {'fields': (('shown_status', 'webhook', 'happened', 'object'), ('waits',), ('error',))}),
        (_('Request'), {'fields': (('last_request',), ('partial',))}),
        (_('Times'), {'fields': (('recorded', 'next_attempt', 'finished', 'expires'),)}),
        (_('Origin'), {'fields': (('uuid', 'user', 'sequence', 'caused_by', 'shown_part'),)}),
    )

    recorded = column(_('Created'), lambda delivery: moment(delivery.created), ordering='pk')
    finished = column(_('Finished'), lambda delivery: moment(delivery.finished_at) if delivery.finished_at else '')
    expires = column(_('Expires'), lambda delivery: moment(delivery.expires_at) if delivery.is_open else '')
    next_attempt = column(_('Next attempt'), _next_attempt)
    shown_status = column(_('Status'), delivery_status)
    shown_part = column(_('Part of the change set'), lambda delivery: delivery.shown_part)
    waits = column(_('Why it waits'), _waits)
    user = column(_('User'), lambda delivery: delivery.event.username or '')
    last_request = column(_('Last attempt'), _request)

    @admin.action(description=REDELIVER.label, description_plural=REDELIVER.list_label, location=BOTH)
    def redeliver(self, request: HttpRequest, queryset: QuerySet[Delivery]) -> HttpResponse | None:
        """Redeliver one delivery at once from its page, or ask first about those selected in the list."""
        if request.resolver_match.url_name == 'webhooks_delivery_change':
            confirmation.report(request, redelivery.redeliver(queryset))
            return None
        if request.POST.get('select_across') == '1' and request.GET.get('status__exact') != StatusChoices.SUPERSEDED:
            # The receivers of superseded ones got a later one.
            queryset = queryset.exclude(status=StatusChoices.SUPERSEDED)
        shown = {**self.admin_site.each_context(request), 'opts': self.opts, 'title': REDELIVER.label}
        page = confirmation.Page('admin/webhooks/redeliver.html', shown)
        return confirmation.ask_or_redeliver(request, queryset, REDELIVER, request.get_full_path(), page)

    def render_change_form(
        self, request: HttpRequest, context: dict[str, Any], *args, obj: Delivery | None = None, **kwargs
    ) -> HttpResponse:
        context['subtitle'] = headline(obj)
        return super().render_change_form(request, context, *args, obj=obj, **kwargs)

    def get_queryset(self, request: HttpRequest) -> QuerySet[Delivery]:
        return querysets.deliveries().select_related('object_type')

    def get_object(self, request: HttpRequest, object_id: str, from_field: str | None = None) -> Delivery | None:
        delivery = super().get_object(request, object_id, from_field)
        if delivery is not None:
            delivery.all_attempts = querysets.attempts_of([delivery.pk])[delivery.pk]
        return delivery

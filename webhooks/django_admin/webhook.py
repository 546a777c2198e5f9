"""The admin's pages of webhooks: the list, and the form with the whole definition."""

from collections.abc import Container, Sequence
from typing import Any

from django.contrib import admin, messages
from django.contrib.admin.actions import delete_selected
from django.db import transaction
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.text import Truncator
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _

from .. import object_types
from ..models import Delivery, Webhook
from ..models.webhook import SEALED_FIELDS
from ..presentation import states
from ..presentation.fields import GROUPS, Group, Row
from ..services import secret_rotation
from .base import LoggedAdmin
from .display import column, last_call, word
from .filters import StateFilter, SubscribedTypeFilter
from .forms import WebhookForm

# A row of the list has room for these. A tooltip has them all.
MODELS_SHOWN = 3
URL_CHARS_SHOWN = 60


def _state(webhook: Webhook) -> SafeString:
    state = states.state_of(webhook)
    return format_html('{} <span class="wh-quiet">{}</span>', word(state.label, state.color), last_call(webhook))


def _models(webhook: Webhook) -> SafeString:
    names = sorted(object_types.name_of(object_type) for object_type in webhook.object_types.all())
    rest = f' +{len(names) - MODELS_SHOWN}' if len(names) > MODELS_SHOWN else ''
    return format_html('<span title="{}">{}{}</span>', ', '.join(names), ', '.join(names[:MODELS_SHOWN]), rest)


def _url(webhook: Webhook) -> SafeString:
    masked = webhook.masked_url or gettext('Feed')
    return format_html('<span title="{}">{}</span>', masked, Truncator(masked).chars(URL_CHARS_SHOWN))


class WebhookAdmin(LoggedAdmin):
    """Lists, adds, changes, tests and deletes webhooks. NetBox's pages have all else, and are linked."""

    form = WebhookForm
    masked_fields = ('payload_url', *SEALED_FIELDS)
    list_display = ('name', 'state', 'models', 'events', 'url')
    list_filter = (StateFilter, SubscribedTypeFilter)
    list_select_related = ('health',)
    search_fields = ('name', 'description')
    filter_horizontal = ('ignore_users', 'notification_groups')
    actions = ('delete_selected',)
    readonly_fields = ('state',)

    state = column(_('State'), _state)
    models = column(_('Object types'), _models)
    events = column(_('Events'), lambda webhook: webhook.kind_labels)
    url = column(_('URL'), _url)

    def get_queryset(self, request: HttpRequest) -> QuerySet[Webhook]:
        return states.with_states(super().get_queryset(request)).prefetch_related('object_types')

    def get_fieldsets(self, request: HttpRequest, obj: Webhook | None = None) -> list:
        """Return the groups of fields. A new webhook has no state, and no secret to remove."""
        absent = () if obj else ('clear_secret', 'keep_previous')
        groups = [_fieldset(group, obj or Webhook(), absent) for group in GROUPS]
        return [(None, {'fields': (*self.readonly_fields, '_init_time')}), *groups] if obj else groups

    def render_change_form(
        self, request: HttpRequest, context: dict[str, Any], *args, obj: Webhook | None = None, **kwargs
    ) -> HttpResponse:
        if obj is not None:
            context['new_secret'] = secret_rotation.take(request.session, obj)
        return super().render_change_form(request, context, *args, obj=obj, **kwargs)

    def save_related(self, request: HttpRequest, form: WebhookForm, formsets: list, change: bool) -> None:
        """Keep a generated secret to be shown once. Until here, the change may be refused."""
        super().save_related(request, form, formsets, change)
        if not form.generated_secret:
            return
        webhook = form.instance
        # Django may keep a message in a cookie. So the secret is no message.
        secret_rotation.show_once(request.session, webhook, form.generated_secret)
        if '_addanother' in request.POST:
            self.message_user(request, secret_rotation.waiting_message(webhook), messages.WARNING)

    def response_post_save_add(self, request: HttpRequest, obj: Webhook) -> HttpResponse:
        return self._show_secret(request, obj) or super().response_post_save_add(request, obj)

    def response_post_save_change(self, request: HttpRequest, obj: Webhook) -> HttpResponse:
        return self._show_secret(request, obj) or super().response_post_save_change(request, obj)

    def _show_secret(self, request: HttpRequest, obj: Webhook) -> HttpResponse | None:
        if secret_rotation.is_waiting(request.session, obj):
            return redirect('admin:webhooks_webhook_change', obj.pk)
        return None

    def get_deleted_objects(self, objs: Sequence[Webhook], request: HttpRequest) -> tuple[list, dict, set, list]:
        """Return the number of deliveries that go too, in place of a list: the log may be too long."""
        logged = Delivery.objects.filter(webhook__in=[webhook.pk for webhook in objs]).count()
        counts = {Webhook._meta.verbose_name_plural: len(objs), Delivery._meta.verbose_name_plural: logged}
        return [str(webhook) for webhook in objs], counts, set(), []

    @admin.action(description=_('Delete'), permissions=['delete'])
    @transaction.atomic
    def delete_selected(self, request: HttpRequest, queryset: QuerySet[Webhook]) -> HttpResponse | None:
        return delete_selected(self, request, queryset)


def _fieldset(group: Group, webhook: Webhook, absent: Container[str | Row]) -> tuple:
    rows = [row.names if isinstance(row, Row) else row for row in group.rows if row not in absent]
    return group.title, {'fields': rows, 'classes': () if group.is_open(webhook) else ('collapse',)}

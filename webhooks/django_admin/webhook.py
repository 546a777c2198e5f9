"""The admin's pages of webhooks: list, form, actions and backfill."""

import time
from collections.abc import Container, Sequence
from itertools import chain
from typing import Any

from django.contrib import admin, messages
from django.contrib.admin.actions import delete_selected
from django.contrib.admin.utils import flatten_fieldsets
from django.db import transaction
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.template.loader import render_to_string
from django.template.response import TemplateResponse
from django.urls import URLPattern, path, reverse
from django.utils import timezone
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.text import Truncator
from django.utils.translation import gettext, ngettext_lazy
from django.utils.translation import gettext_lazy as _

from .. import object_types
from ..exceptions import WebhooksError
from ..forms import BackfillForm
from ..forms.definition import groups_for
from ..models import Delivery, Webhook
from ..models.webhook import SEALED_FIELDS
from ..presentation import progress, states
from ..presentation.fields import Group, Row
from ..presets import all_presets
from ..services import feed, secret_rotation, switching, trial, why_not_sent
from ..services.actions import BACKFILL, DISABLE, ENABLE, MOVES, PAUSE, REDELIVER_FAILED, RESUME, TEST
from ..ui import history
from . import custom_fields
from .base import ON_LIST_AND_FORM, BaseAdmin, or_explain
from .causes import causes_for_admin
from .display import failed_url, last_call, word
from .filters import StateFilter, SubscribedTypeFilter
from .forms import WebhookForm
from .preview import PreviewMixin
from .replay import ReplayMixin

MASKED_FIELDS = ('payload_url', *SEALED_FIELDS)
# A row of the list has room for these. A tooltip has them all.
MODELS_SHOWN = 3
URL_CHARS_SHOWN = 60
# The button of the page's form.
START_BUTTON = '_start'
# The field of the form of a new webhook that names the preset to begin anew with.
PRESET_BUTTON = '_preset'


class WebhookAdmin(PreviewMixin, ReplayMixin, BaseAdmin):
    """Lists, adds, changes, tests, switches and deletes webhooks. Redeliveries and backfills begin here too."""

    form = WebhookForm
    list_display = ('name', 'state', 'models', 'events', 'url')
    list_filter = (StateFilter, SubscribedTypeFilter)
    list_select_related = ('health',)
    search_fields = ('name', 'description')
    filter_horizontal = ('ignore_users', 'notification_groups')
    actions = (REDELIVER_FAILED.name, 'delete_selected')
    readonly_fields = ('state', 'backfill_progress', 'last_day')

    def lookup_allowed(self, lookup: str, value: Any, request: HttpRequest) -> bool:
        """Refuse filters by a masked field: matches would reveal its value."""
        return lookup.partition('__')[0] not in MASKED_FIELDS and super().lookup_allowed(lookup, value, request)

    def get_queryset(self, request: HttpRequest) -> QuerySet[Webhook]:
        return states.with_states(super().get_queryset(request)).prefetch_related('object_types')

    @admin.display(description=_('State'))
    def state(self, webhook: Webhook) -> SafeString:
        state = states.state_of(webhook)
        return format_html('{} <span class="wh-quiet">{}</span>', word(state.label, state.color), last_call(webhook))

    @admin.display(description=history.DAY.title)
    def last_day(self, webhook: Webhook) -> SafeString:
        figures = history.context(webhook, history.DAY, timezone.now())
        return render_to_string('webhooks/inc/history.html', {**figures, 'failed_url': failed_url(webhook)})

    @admin.display(description=_('Backfill'))
    def backfill_progress(self, webhook: Webhook) -> SafeString:
        backfilled = render_to_string('webhooks/inc/backfill.html', {'progress': progress.of(webhook)})
        found = progress.walking(webhook)
        # A plain text would make the whole one: the page would show its tags.
        return backfilled + (render_to_string('webhooks/inc/walk.html', {'walking': found}) if found else SafeString())

    @admin.display(description=_('Object types'))
    def models(self, webhook: Webhook) -> SafeString:
        names = sorted(object_types.name_of(object_type) for object_type in webhook.object_types.all())
        rest = f' +{len(names) - MODELS_SHOWN}' if len(names) > MODELS_SHOWN else ''
        return format_html('<span title="{}">{}{}</span>', ', '.join(names), ', '.join(names[:MODELS_SHOWN]), rest)

    @admin.display(description=_('Events'))
    def events(self, webhook: Webhook) -> str:
        return webhook.kind_labels

    @admin.display(description=_('URL'))
    def url(self, webhook: Webhook) -> SafeString:
        masked = webhook.masked_url or gettext('Feed')
        return format_html('<span title="{}">{}</span>', masked, Truncator(masked).chars(URL_CHARS_SHOWN))

    #
    # Actions
    #

    @admin.action(description=ENABLE.label)
    def enable(self, request: HttpRequest, queryset: QuerySet[Webhook]) -> None:
        self._switch(request, queryset, ngettext_lazy('%d webhook enabled.', '%d webhooks enabled.'), enabled=True)

    @admin.action(description=DISABLE.label)
    def disable(self, request: HttpRequest, queryset: QuerySet[Webhook]) -> None:
        self._switch(request, queryset, ngettext_lazy('%d webhook disabled.', '%d webhooks disabled.'), enabled=False)

    @admin.action(description=PAUSE.label, location=ON_LIST_AND_FORM)
    def pause(self, request: HttpRequest, queryset: QuerySet[Webhook]) -> None:
        self._switch(request, queryset, ngettext_lazy('%d webhook paused.', '%d webhooks paused.'), paused=True)

    @admin.action(description=RESUME.label, location=ON_LIST_AND_FORM)
    def resume(self, request: HttpRequest, queryset: QuerySet[Webhook]) -> None:
        self._switch(request, queryset, ngettext_lazy('%d webhook resumed.', '%d webhooks resumed.'), paused=False)

    @transaction.atomic
    def _switch(self, request: HttpRequest, queryset: QuerySet[Webhook], told: str, **wanted: bool) -> None:
        webhooks = list(queryset.exclude(**wanted))
        for webhook in webhooks:
            switching.switch(webhook, **wanted)
        self.message_user(request, told % len(webhooks), messages.SUCCESS)

    @admin.action(description=TEST.label, location=ON_LIST_AND_FORM)
    def test(self, request: HttpRequest, queryset: QuerySet[Webhook]) -> None:
        """Test the selected webhooks one after another. After trial.MAX_TEST_SECONDS no further test begins."""
        end = time.monotonic() + trial.MAX_TEST_SECONDS
        for webhook in queryset:
            if time.monotonic() > end:
                self.message_user(
                    request,
                    _('{webhook}: not tested, because the other tests took too long. Test it alone.').format(
                        webhook=webhook
                    ),
                )
                continue
            try:
                delivery = trial.send_test(webhook, request.user)
            except WebhooksError as error:
                self.message_user(request, f'{webhook}: {error}', messages.ERROR)
            else:
                self._tell_test(request, delivery)

    def _tell_test(self, request: HttpRequest, delivery: Delivery) -> None:
        level, told = trial.announce(delivery)
        page = reverse('admin:webhooks_delivery_change', args=[delivery.pk])
        self.message_user(request, format_html('{} <a href="{}">{}</a>', told, page, _('Show the delivery')), level)

    @admin.action(description=REDELIVER_FAILED.label, location=ON_LIST_AND_FORM)
    def redeliver_failed(self, request: HttpRequest, queryset: QuerySet[Webhook]) -> HttpResponse | None:
        """Ask, then redeliver the selected webhooks' failed deliveries."""
        failed = Delivery.objects.failures().filter(webhook__in=queryset)
        return self.confirm_or_redeliver(request, failed, REDELIVER_FAILED)

    #
    # Change and delete
    #

    def get_object(self, request: HttpRequest, object_id: str, from_field: str | None = None) -> Webhook | None:
        webhook = super().get_object(request, object_id, from_field)
        if webhook is not None and request.method == 'POST':
            webhook.snapshot()
        return webhook

    def get_fieldsets(self, request: HttpRequest, obj: Webhook | None = None) -> list:
        """Return the groups of fields. A new webhook has no health, and no secret to remove."""
        absent = () if obj else ('clear_secret', 'keep_previous')
        chosen = None if obj else all_presets().get(_preset_of(request))
        groups = [_fieldset(group, obj or Webhook(), absent) for group in groups_for(chosen)]
        if names := custom_fields.names():
            groups.append((_('Custom Fields'), {'fields': names}))
        return [(None, {'fields': (*self.readonly_fields, '_init_time')}), *groups] if obj else groups

    def changeform_view(self, request: HttpRequest, object_id: str | None = None, *args, **kwargs) -> HttpResponse:
        """Show or save the form. As in NetBox, a POST with `_preset` only shows a new webhook's form anew."""
        if object_id is None and PRESET_BUTTON in request.POST:
            request.method = 'GET'
        return super().changeform_view(request, object_id, *args, **kwargs)

    def get_changeform_initial_data(self, request: HttpRequest) -> dict[str, Any]:
        """Return the first values of a new webhook. With another preset, what was typed stays, but for a secret."""
        if PRESET_BUTTON not in request.POST:
            return super().get_changeform_initial_data(request)
        before = {'preset': request.POST.get('preset', '')}
        typed = self.get_form(request)(request.POST, initial=before).typed()
        return {**typed, 'preset': _preset_of(request)}

    def get_form(
        self, request: HttpRequest, obj: Webhook | None = None, change: bool = False, **kwargs
    ) -> type[WebhookForm]:
        """Return the form, made without custom fields: it adds these by itself."""
        fields = kwargs.pop('fields', None) or flatten_fieldsets(self.get_fieldsets(request, obj))
        own = [name for name in fields if name not in custom_fields.names()]
        return super().get_form(request, obj, change, fields=own, **kwargs)

    def render_change_form(
        self, request: HttpRequest, context: dict[str, Any], *args, obj: Webhook | None = None, **kwargs
    ) -> HttpResponse:
        if obj is not None:
            context |= {
                'draft_url': reverse('admin:webhooks_webhook_draft', args=[obj.pk]),
                'banners': why_not_sent.banners_of(obj),
                'causes': causes_for_admin(obj),
                'feed_unread': feed.unread_of(obj) if obj.is_feed else None,
                'new_secret': secret_rotation.take(request.session, obj),
            }
        else:
            context |= {
                'draft_url': reverse('admin:webhooks_webhook_new_draft'),
                'presets': all_presets().values(),
            }
        return super().render_change_form(request, context, *args, obj=obj, **kwargs)

    def get_urls(self) -> list[URLPattern]:
        backfill_url = path(
            '<path:object_id>/backfill/',
            self.admin_site.admin_view(self.backfill_view),
            name='webhooks_webhook_backfill',
        )
        return [backfill_url, *super().get_urls()]

    @or_explain
    def backfill_view(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Show the webhook's backfill and the form to start one. POST starts or moves it."""
        webhook = self.get_object(request, object_id)
        if webhook is None:
            return self._get_obj_does_not_exist_redirect(request, self.opts, object_id)
        form = BackfillForm(request.POST if START_BUTTON in request.POST else None, webhook=webhook)
        if request.method == 'POST' and self._act(request, webhook, form):
            return redirect(request.path)
        found = progress.of(webhook, request.user)
        context = {
            **self.admin_site.each_context(request),
            'opts': self.opts,
            'original': webhook,
            'title': BACKFILL.label,
            'action': BACKFILL,
            'form': form,
            'progress': found,
            'moves': MOVES.get(found.backfill.state, ()) if found else (),
        }
        return TemplateResponse(request, 'admin/webhooks/backfill.html', context)

    def _act(self, request: HttpRequest, webhook: Webhook, form: BackfillForm) -> bool:
        """Start or move the backfill, as the pressed button says.

        Return False to show the form again, with its errors.
        """
        if START_BUTTON in request.POST:
            return form.is_valid() and form.start(request.user)
        for move in {one for one in chain(*MOVES.values()) if one.name in request.POST}:
            try:
                move.service(webhook, request.user)
            except WebhooksError as error:
                self.message_user(request, str(error), messages.ERROR)
        return True

    def save_related(self, request: HttpRequest, form: WebhookForm, formsets: list, change: bool) -> None:
        """Keep a generated secret to be shown once. Until here, the change may be refused."""
        super().save_related(request, form, formsets, change)
        if not form.generated_secret:
            return
        webhook = form.instance
        # Django may keep a message in a cookie. So the secret is no message.
        secret_rotation.show_once(request.session, webhook, form.generated_secret)
        if '_addanother' in request.POST:
            self.message_user(request, secret_rotation.told_waiting(webhook), messages.WARNING)

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

    def delete_queryset(self, request: HttpRequest, queryset: QuerySet[Webhook]) -> None:
        for webhook in queryset:
            webhook.snapshot()
            webhook.delete()


def _preset_of(request: HttpRequest) -> str:
    """Return the name of the preset that was chosen just now, or before, or in the address. '' if there is none."""
    return request.POST.get(PRESET_BUTTON) or request.POST.get('preset') or request.GET.get('preset', '')


def _fieldset(group: Group, webhook: Webhook, absent: Container[str | Row]) -> tuple:
    rows = [row.names if isinstance(row, Row) else row for row in group.rows if row not in absent]
    return group.title, {'fields': rows, 'classes': () if group.is_open(webhook) else ('collapse',)}

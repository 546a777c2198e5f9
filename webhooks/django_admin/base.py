"""All admin pages share this: refusals as messages, concurrent saves, actions outside a transaction, redelivery."""

from collections.abc import Callable, Sequence
from functools import wraps
from typing import Any

from core.signals import clear_events
from django import forms
from django.contrib import admin, messages
from django.contrib.admin.helpers import ACTION_CHECKBOX_NAME
from django.contrib.admin.options import ActionLocation
from django.db.models import Model, QuerySet
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.utils.functional import cached_property
from django.utils.html import format_html
from django.utils.safestring import SafeString
from extras.models import CustomField
from utilities.exceptions import AbortRequest
from utilities.forms.mixins import CheckLastUpdatedMixin

from ..exceptions import Busy, DefinitionError
from ..services import actions
from ..services.actions import Action, Where


def or_explain(view: Callable) -> Callable:
    """Wrap an admin view: if NetBox refuses a change or a worker is busy, show why and load the page again.

    The view must have a transaction of its own. Otherwise a part of the refused change would stay.
    """

    @wraps(view)
    def guarded(self: admin.ModelAdmin, request: HttpRequest, *args, **kwargs) -> HttpResponse:
        try:
            return view(self, request, *args, **kwargs)
        except AbortRequest as refusal:
            clear_events.send(sender=type(self))
            self.message_user(request, refusal.message, messages.ERROR)
        except Busy as busy:
            self.message_user(request, str(busy), messages.ERROR)
        return redirect(request.get_full_path())

    return guarded


def _is_action(request: HttpRequest) -> bool:
    buttons = {'_save', '_continue', '_addanother', '_saveasnew'}
    return f'{ActionLocation.CHANGE_FORM.value}-action' in request.POST and not buttons & request.POST.keys()


def _each(one: Action) -> Callable:
    """Return an action on an object's page that calls the service, and shows the result."""

    @admin.action(description=one.label, location=ActionLocation.CHANGE_FORM)
    def act(self: 'BaseAdmin', request: HttpRequest, queryset: QuerySet) -> None:
        for found in queryset:
            try:
                result = one.service(found, request.user)
            except DefinitionError as error:
                self.message_user(request, f'{found}: {error}', messages.ERROR)
            else:
                if message := one.message(found, result):
                    self.message_user(request, message[1], message[0])

    act.__name__ = one.name
    return act


class BaseForm(CheckLastUpdatedMixin, forms.ModelForm):
    """The base of all forms. It refuses to save over a change that was saved since the page was opened.

    A new object has the defaults of custom fields, which the admin does not show.
    """

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        if not self.instance.pk:
            self.instance.custom_field_data = CustomField.objects.get_defaults_for_model(self._meta.model)

    @cached_property
    def changed_data(self) -> list[str]:
        """Return the names of the changed fields, as the admin's history shows them: without NetBox's hidden one."""
        return [name for name in super().changed_data if name != '_init_time']


class BaseAdmin(admin.ModelAdmin):
    """The base of the pages of our models."""

    changelist_view = or_explain(admin.ModelAdmin.changelist_view)
    delete_view = or_explain(admin.ModelAdmin.delete_view)

    def __init__(self, model: type[Model], admin_site: admin.AdminSite) -> None:
        """Add the actions on this model to those of the class: as a method that has the action's name, or _each."""
        super().__init__(model, admin_site)
        offered = actions.of(model, Where.ADMIN)
        own = [one.name if hasattr(self, one.name) else _each(one) for one in offered]
        self.actions = (*own, *(self.actions or ()))

    @or_explain
    def changeform_view(
        self,
        request: HttpRequest,
        object_id: str | None = None,
        form_url: str = '',
        extra_context: dict[str, Any] | None = None,
    ) -> HttpResponse:
        """Show, save or act. Actions run outside of Django's transaction: they send, or commit in parts."""
        if object_id and _is_action(request):
            return self._changeform_view(request, object_id, form_url, extra_context)
        return super().changeform_view(request, object_id, form_url, extra_context)

    @admin.display(description=SafeString('<input type="checkbox" id="action-toggle">'))
    def action_checkbox(self, obj: Model) -> SafeString:
        """Return a row's checkbox, written out.

        NetBox's template of a checkbox adds a hidden input, which would select an object without an ID.
        """
        return format_html(
            '<input type="checkbox" name="{}" value="{}" class="action-select" aria-label="{}">',
            ACTION_CHECKBOX_NAME,
            obj.pk,
            obj,
        )

    def view_on_site(self, obj: Model) -> str:
        return obj.get_absolute_url()


class LoggedAdmin(BaseAdmin):
    """The base of the pages whose objects can be changed. NetBox's change log gets their state before."""

    # The fields that nobody may search for: matches would reveal their values.
    masked_fields: Sequence[str]

    def lookup_allowed(self, lookup: str, value: Any, request: HttpRequest) -> bool:
        return lookup.partition('__')[0] not in self.masked_fields and super().lookup_allowed(lookup, value, request)

    def get_object(self, request: HttpRequest, object_id: str, from_field: str | None = None) -> Model | None:
        found = super().get_object(request, object_id, from_field)
        if found is not None and request.method == 'POST':
            found.snapshot()
        return found

    def delete_queryset(self, request: HttpRequest, queryset: QuerySet) -> None:
        for found in queryset:
            found.snapshot()
            found.delete()

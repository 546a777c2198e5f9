"""What all of our pages in Django's admin need to get on with NetBox."""

from collections.abc import Callable
from functools import wraps

from core.signals import clear_events
from django.contrib import admin, messages
from django.contrib.admin.helpers import ACTION_CHECKBOX_NAME
from django.contrib.admin.options import ActionLocation
from django.db.models import Model, QuerySet
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.translation import gettext as _
from django.utils.translation import ngettext
from utilities.exceptions import AbortRequest

from . import operations
from .models import Delivery

EVERYWHERE = [ActionLocation.CHANGE_LIST, ActionLocation.CHANGE_FORM]


def or_explain(view: Callable) -> Callable:
    """Answer with a message where NetBox refuses a change: a protection rule, or a handler of another plugin.

    What the view does to the database it does in a transaction of its own.
    """

    @wraps(view)
    def guarded(self: admin.ModelAdmin, request: HttpRequest, *args, **kwargs) -> HttpResponse:
        try:
            return view(self, request, *args, **kwargs)
        except AbortRequest as refusal:
            clear_events.send(sender=type(self))
            self.message_user(request, refusal.message, messages.ERROR)
            return redirect(request.get_full_path())

    return guarded


class BaseAdmin(admin.ModelAdmin):
    changelist_view = or_explain(admin.ModelAdmin.changelist_view)
    changeform_view = or_explain(admin.ModelAdmin.changeform_view)
    delete_view = or_explain(admin.ModelAdmin.delete_view)

    @admin.display(description=SafeString('<input type="checkbox" id="action-toggle">'))
    def action_checkbox(self, obj: Model) -> SafeString:
        """NetBox's template for checkboxes adds a hidden input, which would select an object without an id."""
        return format_html(
            '<input type="checkbox" name="{}" value="{}" class="action-select" aria-label="{}">',
            ACTION_CHECKBOX_NAME,
            obj.pk,
            obj,
        )

    def view_on_site(self, obj: Model) -> str:
        return obj.get_absolute_url()

    def send_again(self, request: HttpRequest, deliveries: QuerySet[Delivery]) -> None:
        count = operations.redeliver(deliveries)
        if count:
            text = ngettext('%d delivery is sent again.', '%d deliveries are sent again.', count) % count
            self.message_user(request, text, messages.SUCCESS)
        else:
            text = _('There is nothing to send again: open deliveries are sent by themselves.')
            self.message_user(request, text, messages.WARNING)

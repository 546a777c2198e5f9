"""The views of the table of actions (services/actions.py). Each action without a form gets its view here."""

from typing import Any

from core.signals import clear_events
from django.contrib import messages
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from netbox.views.generic.base import BaseObjectView
from utilities.exceptions import AbortRequest, PermissionsViolation
from utilities.views import register_model_view

from ..exceptions import Busy, DefinitionError
from ..models import Delivery
from ..services import actions
from ..services.actions import Action, Where


class NeedsAction:
    """A mixin for views that need an action's permission. They find objects that the user may view too."""

    action: Action

    def get_required_permission(self) -> str:
        return self.action.full_permission

    def get_queryset(self, request: HttpRequest) -> QuerySet:
        return super().get_queryset(request).restrict(request.user, 'view')


class ActionView(NeedsAction, BaseObjectView):
    """The base of all actions on one object.

    A POST acts. A GET shows the form, or redirects to the object if the action has no form. `Busy` becomes a message.
    """

    def dispatch(self, request: HttpRequest, *args, **kwargs) -> HttpResponse:
        try:
            return super().dispatch(request, *args, **kwargs)
        except Busy as busy:
            messages.error(request, str(busy))
            return redirect(request.path)

    def get(self, request: HttpRequest, pk: int) -> HttpResponse:
        return redirect(self.get_object(pk=pk).get_absolute_url())


class ServiceView(ActionView):
    """Calls the action's service, and shows the user the result, or why it was refused.

    It leads to the delivery that the service returned, if the user may view that; otherwise to the object.
    """

    def post(self, request: HttpRequest, pk: int) -> HttpResponse:
        found = self.get_object(pk=pk)
        try:
            result = self.action.service(found, request.user)
        except DefinitionError as error:
            messages.error(request, str(error))
            return redirect(found.get_absolute_url())
        except (AbortRequest, PermissionsViolation) as refusal:
            clear_events.send(sender=type(self))
            messages.error(request, refusal.message)
            return redirect(found.get_absolute_url())
        if message := self.action.message(found, result):
            messages.add_message(request, *message)
        return redirect((result if _may_view(request, result) else found).get_absolute_url())


def _may_view(request: HttpRequest, result: Any) -> bool:
    return (
        isinstance(result, Delivery) and Delivery.objects.restrict(request.user, 'view').filter(pk=result.pk).exists()
    )


def _view(one: Action) -> type[ServiceView]:
    return type(f'{one.name.title()}View', (ServiceView,), {'action': one, 'queryset': one.model.objects.all()})


for _one in actions.TABLE:
    if not _one.has_form and _one.where & (Where.BUTTON | Where.CARD):
        register_model_view(_one.model, _one.name, path=_one.address)(_view(_one))

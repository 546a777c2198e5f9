"""The page that sends chosen objects of NetBox now. The tab *Webhooks* and the lists of objects lead to it."""

from django.contrib import messages
from django.contrib.contenttypes.models import ContentType
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.utils.translation import gettext
from netbox.registry import registry
from netbox.views.generic.base import BaseMultiObjectView
from utilities.views import GetReturnURLMixin

from .. import object_types, visibility
from ..exceptions import Busy, DefinitionError
from ..forms.action_forms import SendNowForm
from ..models import Webhook
from ..services import send_now
from ..services.actions import SEND_NOW
from ..storable import is_key
from .action_views import NeedsAction
from .checked_input import is_refused


class SendNowView(NeedsAction, GetReturnURLMixin, BaseMultiObjectView):
    """Names the objects and asks for the webhook, then sends them.

    GET has the objects as `pk`. A list posts the selected ones, or none: then all that its filter finds are meant.
    """

    queryset = Webhook.objects.all()
    template_name = 'webhooks/webhook_action.html'
    action = SEND_NOW

    def get(self, request: HttpRequest, label: str) -> HttpResponse:
        object_type = _type(label)
        return self._ask(request, object_type, self._visible(object_type, request.GET.getlist('pk')))

    def post(self, request: HttpRequest, label: str) -> HttpResponse:
        object_type = _type(label)
        pks = (
            self._visible(object_type, request.POST.getlist('pk'))
            if 'pk' in request.POST
            else self._filtered(object_type)
        )
        if pks == []:
            messages.error(request, gettext('There is no object to send: the list is empty, or it has changed.'))
        if not pks:
            return redirect(self.get_return_url(request))
        if 'webhook' not in request.POST:
            return self._ask(request, object_type, pks)
        form = SendNowForm(request.POST, webhooks=self._webhooks(object_type))
        if not form.is_valid() or not self._send(form, object_type, pks):
            return self._ask(request, object_type, pks, form)
        return redirect(self.get_return_url(request))

    def _send(self, form: SendNowForm, object_type: ContentType, pks: list[int]) -> bool:
        """Send the objects, or add the reason why not to the form."""
        try:
            choice = send_now.choose(form.cleaned_data['webhook'], object_type, pks, self.request.user)
            count = send_now.send(choice, self.request.user)
        except (Busy, DefinitionError) as error:
            form.add_error(None, str(error))
            return False
        messages.success(self.request, send_now.announce(choice, count))
        return True

    def _ask(
        self, request: HttpRequest, object_type: ContentType, pks: list[int], form: SendNowForm | None = None
    ) -> HttpResponse:
        return_url = self.get_return_url(request)
        if not pks:
            raise Http404
        if len(pks) > send_now.MAX_OBJECTS:
            messages.error(request, send_now.too_many())
            return redirect(return_url)
        shown = {
            'object': send_now.named(object_type, pks),
            'form': form or SendNowForm(webhooks=self._webhooks(object_type)),
            'action': SEND_NOW,
            'kept': [*(('pk', pk) for pk in pks), ('return_url', return_url)],
            'return_url': return_url,
        }
        return render(request, self.template_name, shown)

    def _webhooks(self, object_type: ContentType):
        return SEND_NOW.permitted(self.request.user).filter(object_types=object_type)

    def _visible(self, object_type: ContentType, pks: list[str]) -> list[int]:
        found = visibility.viewable(self.request.user, object_type.model_class())
        return list(found.filter(pk__in=[pk for pk in pks if is_key(pk)]).order_by('pk').values_list('pk', flat=True))

    def _filtered(self, object_type: ContentType) -> list[int] | None:
        """Return the objects of the list by its filter, at most one more than may be sent. None: it is not valid."""
        found = visibility.viewable(self.request.user, object_type.model_class())
        label = object_types.label_of(object_type)
        if filterset_class := registry['filtersets'].get(label):
            filterset = filterset_class(self.request.GET, found, request=self.request)
            if is_refused(self.request, filterset):
                return None
            found = filterset.qs
        pks = found.order_by('pk').values_list('pk', flat=True).distinct()
        return list(pks[: send_now.MAX_OBJECTS + 1])


def _type(label: str) -> ContentType:
    if (found := object_types.by_label().get(label)) is None:
        raise Http404
    return found

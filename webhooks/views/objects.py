"""The tab *Webhooks* on NetBox's objects."""

from typing import Any

from django.contrib.contenttypes.models import ContentType
from django.db.models import Model, QuerySet
from django.http import HttpRequest, HttpResponse
from django.utils.translation import gettext_lazy as _
from netbox.context import current_request
from netbox.views import generic
from utilities.views import ViewTab

from .. import filtersets, tables
from ..models import Delivery, querysets
from ..services.actions import SEND_NOW
from ..ui.buttons import BulkRedeliver, SendNow


def deliveries_of(instance: Model) -> QuerySet[Delivery]:
    """Return the deliveries of changes to this object, to be listed. Callers apply the user's permissions."""
    object_type = ContentType.objects.get_for_model(instance)
    return querysets.deliveries().filter(object_type=object_type, object_id=instance.pk)


def _count(instance: Model) -> int:
    """Return the tab's badge: how many of its deliveries the user may view.

    NetBox passes no request here, so it is taken from NetBox's context. Without one all count.
    """
    deliveries, request = deliveries_of(instance), current_request.get()
    return (deliveries.restrict(request.user, 'view') if request else deliveries).count()


class DeliveriesTab(ViewTab):
    """A tab that is hidden while there is nothing to see, but not from a user who may send the object now."""

    def render(self, instance: Model) -> dict[str, Any] | None:
        shown, request = super().render(instance), current_request.get()
        may_send = request and request.user.has_perm(SEND_NOW.full_permission)
        return shown if shown and (shown['badge'] or may_send) else None


class ObjectDeliveriesView(generic.ObjectChildrenView):
    """Lists the deliveries of one NetBox object, on its tab.

    ui/tabs.py registers it for each model, and passes that as `model`.
    """

    child_model = Delivery
    table = tables.ObjectDeliveryTable
    filterset = filtersets.DeliveryFilterSet
    actions = (BulkRedeliver, SendNow)
    tab = DeliveriesTab(
        label=_('Webhooks'),
        badge=_count,
        permission='webhooks.view_delivery',
        weight=9500,
    )
    additional_permissions = ['webhooks.view_delivery']

    def dispatch(self, request: HttpRequest, *args, model: type[Model], **kwargs) -> HttpResponse:
        self.queryset = model.objects.all()
        return super().dispatch(request, *args, **kwargs)

    def get_children(self, request: HttpRequest, parent: Model) -> QuerySet[Delivery]:
        return deliveries_of(parent).restrict(request.user, 'view')

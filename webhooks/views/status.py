"""Each line needs its own permission."""

from django.contrib.auth.mixins import PermissionRequiredMixin
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.urls import reverse
from django.views.generic import View

from ..choices import StatusChoices
from ..models import Delivery
from ..outbox import redis_queue
from ..services import status


class StatusView(PermissionRequiredMixin, View):
    # One permission is enough.
    permission_required = ('webhooks.view_delivery', 'webhooks.view_webhook')

    def has_permission(self) -> bool:
        return any(map(self.request.user.has_perm, self.get_permission_required()))

    def get(self, request: HttpRequest) -> HttpResponse:
        failed = Delivery.objects.restrict(request.user, 'view').filter(status=StatusChoices.FAILED)
        shown = {
            'lines': status.lines(_urls(), request.user),
            'workers': redis_queue.workers(),
            'has_failed': failed.exists(),
        }
        return render(request, 'webhooks/status.html', shown)


def _urls() -> dict[str, str]:
    deliveries = reverse('plugins:webhooks:delivery_list')
    return {
        'workers': '#workers',
        'waiting': f'{deliveries}?status={StatusChoices.PENDING}',
        'failed': f'{deliveries}?status={StatusChoices.FAILED}',
        'suspended': f'{reverse("plugins:webhooks:webhook_list")}?suspended=true',
    }

"""NetBox's page *Status*."""

from django.contrib.auth.mixins import PermissionRequiredMixin
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.views.generic import View

from ..outbox import redis_queue
from ..services import causes, database_health, status
from ..services.actions import REDELIVER


class StatusView(PermissionRequiredMixin, View):
    """Shows the workers, how much waits and failed, the causes, and which webhooks are suspended or paused.

    One of both permissions opens the page. Each line then needs its own. Superusers see the database too.
    """

    permission_required = ('webhooks.view_delivery', 'webhooks.view_webhook')

    def has_permission(self) -> bool:
        return any(map(self.request.user.has_perm, self.get_permission_required()))

    def get(self, request: HttpRequest) -> HttpResponse:
        shown = {
            'lines': status.lines(request.user),
            'workers': redis_queue.workers(),
            'causes': causes.find(request.user),
            'database': database_health.measure() if request.user.is_superuser else None,
            'may_redeliver': request.user.has_perm(REDELIVER.full_permission),
        }
        return render(request, 'webhooks/status.html', shown)

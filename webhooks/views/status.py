"""NetBox's page *Status*."""

from itertools import islice

from django.contrib.auth.mixins import PermissionRequiredMixin
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.views.generic import View

from .. import conf
from ..models import Webhook
from ..outbox import redis_queue
from ..payload import schema_guard
from ..services import backlog, causes, database_health, switching
from ..services.actions import REDELIVER
from ..services.not_sending import MAX_NAMED, name_some


class StatusView(PermissionRequiredMixin, View):
    """Shows the workers, how much waits and failed, the causes, and which webhooks are suspended or paused.

    One of both permissions opens the page. Each line then needs its own. Superusers see the database too.
    """

    permission_required = ('webhooks.view_delivery', 'webhooks.view_webhook')

    def has_permission(self) -> bool:
        return any(map(self.request.user.has_perm, self.get_permission_required()))

    def get(self, request: HttpRequest) -> HttpResponse:
        user, settings, found = request.user, conf.get(), backlog.measure(request.user)
        unknown = schema_guard.unknown(Webhook.objects.restrict(user, 'view'))
        shown = {
            'enabled': settings.enabled,
            'worker': settings.worker,
            'not_recorded': switching.NOT_RECORDED,
            'no_redis': switching.NO_REDIS,
            'backlog': found,
            'suspended': name_some(found.suspended),
            'paused': name_some(found.paused),
            'unknown': name_some([*islice(unknown, MAX_NAMED + 1)]),
            'workers': redis_queue.workers(),
            'causes': causes.find(user),
            'database': database_health.measure() if user.is_superuser else None,
            'may_redeliver': user.has_perm(REDELIVER.full_permission),
        }
        return render(request, 'webhooks/status.html', shown)

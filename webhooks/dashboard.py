"""The widget of NetBox's dashboard. NetBox finds it when this module is imported."""

from dataclasses import dataclass
from datetime import timedelta

from django.db.models import QuerySet, Sum
from django.http import HttpRequest
from django.template.loader import render_to_string
from django.utils import timezone
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _
from extras.dashboard.utils import register_widget
from extras.dashboard.widgets import DashboardWidget
from users.models import User

from . import conf
from .choices import WAITING_STATUSES, StatusChoices
from .models import Delivery, Event, Hour, Webhook
from .outbox import redis_queue
from .presentation.links import page_url
from .presentation.states import IS_SUSPENDED
from .services import backlog
from .services.not_sending import MAX_NAMED

FAILURE_RATE_HOURS = 24


@register_widget
class WebhooksWidget(DashboardWidget):
    """Shows the last day's failures, how much waits, and suspended webhooks, as far as the user may view them."""

    description = _('Shows how many deliveries wait and fail, and which webhooks are suspended.')
    template_name = 'webhooks/dashboard/webhooks.html'
    width = 4
    height = 3

    @property
    def default_title(self) -> str:
        """Return the title in the user's language. NetBox calls `str()` of it, and stores it as JSON: no lazy text."""
        return gettext('Webhooks')

    def render(self, request: HttpRequest) -> str:
        user = request.user
        if not user.has_perm('webhooks.view_webhook'):
            return render_to_string(self.template_name)
        webhooks = Webhook.objects.restrict(user, 'view')
        context = {'webhooks': webhooks, 'suspended': _suspended(webhooks), 'last_day': _last_day(webhooks)}
        if user.has_perm('webhooks.view_delivery'):
            context |= _unsent(user, webhooks)
        return render_to_string(self.template_name, context)


@dataclass(frozen=True)
class LastDay:
    """How many deliveries were delivered and failed in the last FAILURE_RATE_HOURS. `url` lists the failed ones."""

    delivered: int
    failed: int
    url: str

    @property
    def closed(self) -> int:
        """Return how many were delivered or failed."""
        return self.delivered + self.failed

    @property
    def failure_rate(self) -> float:
        """Return the share of failed ones in percent, 0.0 if none was closed."""
        return 100 * self.failed / self.closed if self.closed else 0.0


def _last_day(webhooks: QuerySet[Webhook]) -> LastDay:
    since = timezone.now() - timedelta(hours=FAILURE_RATE_HOURS)
    hours = Hour.objects.filter(health__webhook__in=webhooks, start__gt=since)
    sums = hours.aggregate(delivered=Sum('delivered'), failed=Sum('failed'))
    url = page_url('delivery_list', status=StatusChoices.FAILED, test='false', finished_at__gte=since.isoformat())
    return LastDay(sums['delivered'] or 0, sums['failed'] or 0, url)


def _unsent(user: User, webhooks: QuerySet[Webhook]) -> dict[str, object]:
    """Return the figures of unsent changes, and whether they are stuck: no worker runs, or is known without Redis."""
    deliveries = Delivery.objects.restrict(user, 'view').filter(webhook__in=list(webhooks.values_list('pk', flat=True)))
    unsent = backlog.unsent(Event.objects.restrict(user, 'view'), deliveries)
    workers = redis_queue.count_workers()
    return {
        'unsent': unsent,
        'unsent_url': page_url('delivery_list', status=WAITING_STATUSES, sort='created'),
        'is_stuck': (unsent.pending or unsent.undispatched) and not workers,
        'workers': workers,
        'worker': conf.get().worker,
    }


def _suspended(webhooks: QuerySet[Webhook]) -> dict[str, object]:
    found = webhooks.filter(IS_SUSPENDED)
    return {
        'count': found.count(),
        'first': list(found.order_by('health__suspended_since')[:MAX_NAMED]),
        'url': page_url('webhook_list', suspended='true'),
    }

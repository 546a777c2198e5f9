"""Failed deliveries by cause, with the links of the admin's pages. Its users may view and redeliver everything."""

from django.urls import reverse
from django.utils.http import urlencode

from ..choices import StatusChoices
from ..models import Webhook
from ..services.causes import Cause, Row, Table, find, table
from .filters import CauseFilter


def causes_for_admin(webhook: Webhook | None = None) -> Table | None:
    """Return the table of causes, in all webhooks or in one. None: nothing has failed."""
    return table(find(webhook=webhook), _row)


def redeliver_url(**filters: object) -> str:
    """Return the page that asks before it redelivers. The filters are named as in the admin's list."""
    return f'{reverse("admin:webhooks_delivery_redeliver")}?{urlencode(filters)}'


def _row(cause: Cause) -> Row:
    filters = {
        'status__exact': StatusChoices.FAILED,
        'webhook__id__exact': cause.webhook.pk,
        'event__test__exact': 0,
        CauseFilter.parameter_name: cause.error,
    }
    return Row(
        cause,
        reverse('admin:webhooks_webhook_change', args=[cause.webhook.pk]),
        f'{reverse("admin:webhooks_delivery_changelist")}?{urlencode(filters)}',
        redeliver_url(**filters),
    )

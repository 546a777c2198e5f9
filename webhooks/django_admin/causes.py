"""Causes of failures on the admin's pages. Those who see them may view and redeliver everything."""

from django.urls import reverse
from django.utils.http import urlencode

from ..choices import StatusChoices
from ..models import Webhook
from ..services.causes import Cause, Row, Table, find, table


def causes_for_admin(webhook: Webhook | None = None) -> Table | None:
    """None: nothing has failed."""
    return table(find(webhook=webhook), _row)


def redeliver_url(**filters: object) -> str:
    """Return the page that asks before it redelivers what these filters of the admin's list find."""
    return f'{reverse("admin:webhooks_delivery_redeliver")}?{urlencode(filters)}'


def _row(cause: Cause) -> Row:
    filters = {
        'status__exact': StatusChoices.FAILED,
        'webhook__id__exact': cause.webhook.pk,
        'error__startswith' if cause.is_cut else 'error__exact': cause.error,
    }
    return Row(
        cause,
        reverse('admin:webhooks_webhook_change', args=[cause.webhook.pk]),
        f'{reverse("admin:webhooks_delivery_changelist")}?{urlencode(filters)}',
        redeliver_url(**filters),
    )
